/**
 * The fixture over stdio. The first message decides the era; with `--legacy` it answers only to `initialize`, as a
 * server built before 2026-07-28 does, and with `--modern` it refuses `initialize`, as one without the old era does.
 */
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import { createFixture } from './fixture.ts';

if (process.argv.includes('--legacy')) {
  void createFixture().connect(new StdioServerTransport());
} else {
  serveStdio(createFixture, {
    legacy: process.argv.includes('--modern') ? 'reject' : 'serve',
    onerror: (error) => console.error(error.message),
  });
}
