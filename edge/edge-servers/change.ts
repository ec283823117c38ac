/** Owns which notifications of a server concern everybody who listens, rather than the request at hand. Pure. */
import type { ServerEvent } from '@modelcontextprotocol/server';

/** The event in a notification that concerns every listener, if it is one. */
export function changeIn(
  method: string,
  params: Readonly<Record<string, unknown>> | undefined,
): ServerEvent | undefined {
  switch (method) {
    case 'notifications/tools/list_changed':
      return { kind: 'tools_list_changed' };
    case 'notifications/prompts/list_changed':
      return { kind: 'prompts_list_changed' };
    case 'notifications/resources/list_changed':
      return { kind: 'resources_list_changed' };
    case 'notifications/resources/updated':
      return typeof params?.uri === 'string' ? { kind: 'resource_updated', uri: params.uri } : undefined;
    default:
      return undefined;
  }
}
