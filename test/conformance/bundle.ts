/**
 * Makes the stdio fixture one file that Node runs with no `node_modules` beside it, as a microVM has none.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

/** Returns the path of the bundle, `<outDir>/stdio.mjs`. */
export async function bundleFixture(outDir: string): Promise<string> {
  const outfile = join(outDir, 'stdio.mjs');
  await build({
    entryPoints: [fileURLToPath(new URL('stdio.ts', import.meta.url))],
    outfile,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    // Bundled CommonJS still calls `require` for Node's own modules, and ESM has none.
    banner: { js: "import{createRequire}from'node:module';const require=createRequire(import.meta.url);" },
    logLevel: 'warning',
  });
  return outfile;
}
