/** What a scripted origin does as a server with lists: two pages of tools, one prompt, no templates, tools with hints. */
import type { ServerResponse } from 'node:http';
import { LISTS_HEADER } from '../../shared/origin-api.ts';
import { type Arrived, json, PROTOCOL, result } from './scripted-origin.ts';

export interface Listing {
  /** Names of the tools of the first page. */
  tools: string[];
  prompts: string[];
  version: string;
  protocolVersion: string;
  /** The process changed its lists after it was called. */
  own: boolean;
  /** What it says about caching (2026-07-28). */
  hints: Record<string, unknown>;
}

export const fresh = (): Listing => ({
  tools: ['look'],
  prompts: ['greet'],
  version: '1',
  protocolVersion: PROTOCOL,
  own: false,
  hints: {},
});

const tool = (name: string) => ({
  name,
  inputSchema: { type: 'object' },
  ...(name === 'look' ? { annotations: { readOnlyHint: true } } : {}),
});

/** Answers initialize and the lists; false for anything else. */
export function lists(listing: Listing, { message }: Arrived, response: ServerResponse): boolean {
  if (!('method' in message) || !('id' in message)) return false;
  if (listing.own) response.setHeader(LISTS_HEADER, 'changed');
  const answer = (value: Record<string, unknown>) => {
    json(response, result(message, { ...value, ...listing.hints }));
    return true;
  };
  const offers = { tools: { listChanged: true }, prompts: {}, resources: { subscribe: true }, logging: {} };
  switch (message.method) {
    case 'initialize':
      return answer({
        protocolVersion: listing.protocolVersion,
        capabilities: offers,
        serverInfo: { name: 'listing', version: listing.version },
      });
    case 'server/discover':
      return answer({ resultType: 'complete', supportedVersions: ['2026-07-28'], capabilities: offers });
    case 'tools/list':
      return message.params?.cursor === undefined
        ? answer({ tools: listing.tools.map(tool), nextCursor: 'two' })
        : answer({ tools: [{ ...tool('again'), annotations: { idempotentHint: true } }, tool('write')] });
    case 'prompts/list':
      return answer({ prompts: listing.prompts.map((name) => ({ name })) });
    case 'resources/list':
      return answer({ resources: [] });
    case 'resources/templates/list':
      json(response, { jsonrpc: '2.0', id: message.id, error: { code: -32601, message: 'no templates' } });
      return true;
    default:
      return false;
  }
}
