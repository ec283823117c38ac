/** Owns the text of the module `moorage:edge-servers`, which brings the configured edge servers into the Worker. Pure. */

export const EDGE_SERVERS_MODULE = 'moorage:edge-servers';

/** Source of the module. `servers`: name to the path or specifier of the module whose default export makes the server. */
export function edgeServersModule(servers: Readonly<Record<string, string>>): string {
  const entries = Object.entries(servers);
  const imports = entries.map(([, path], n) => `import server${n} from ${JSON.stringify(path)};\n`).join('');
  const members = entries.map(([name], n) => `  [${JSON.stringify(name)}, server${n}],\n`).join('');
  // fromEntries defines own members for every name, also for one such as "__proto__".
  return `${imports}export const edgeServers = Object.fromEntries([\n${members}]);\n`;
}
