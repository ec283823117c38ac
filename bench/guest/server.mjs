/** A stdio MCP server for measuring: a tool that counts, and one that changes memory. */
import { createInterface } from 'node:readline';

let counter = 0;
/** Allocated and written before the machine first sleeps: to dirty it changes pages and makes none. */
const memory = Buffer.alloc(10_000_000, 1);

const tools = {
  count: () => ++counter,
  dirty: ({ bytes }) => memory.fill(++counter & 0xff, 0, bytes).length,
};

const methods = {
  initialize: ({ protocolVersion }) => ({
    protocolVersion,
    capabilities: { tools: {} },
    serverInfo: { name: 'bench', version: '1' },
  }),
  'tools/list': () => ({ tools: Object.keys(tools).map((name) => ({ name, inputSchema: { type: 'object' } })) }),
  'tools/call': ({ name, arguments: args }) => ({ content: [{ type: 'text', text: String(tools[name](args ?? {})) }] }),
};

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id !== undefined)
    process.stdout.write(`${JSON.stringify({ jsonrpc: '2.0', id, result: methods[method](params) })}\n`);
});
