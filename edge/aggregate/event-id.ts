/** Owns ids of events at `/mcp`: `<server>~<id of the server's endpoint>`, so that a client that comes back is led to it. Pure. */
import { parseEventId } from '../../shared/event-stream.ts';

export interface MemberEvent {
  readonly server: string;
  readonly id: string;
}

export const memberEventId = (server: string, id: string): string => `${server}~${id}`;

/** Undefined for what is no id of a call's event here. */
export function readMemberEventId(text: string | null): MemberEvent | undefined {
  const at = text?.indexOf('~') ?? -1;
  if (text === null || at <= 0) return undefined;
  const [server, id] = [text.slice(0, at), text.slice(at + 1)];
  const event = parseEventId(id);
  return event && event.kind !== 'session' ? { server, id } : undefined;
}
