/** Owns what is written down of calls: nothing, unless the owner asked for it (`audit.payloads`). */
import { isRequest, type JsonRpcMessage, nameFrom } from '../../shared/jsonrpc.ts';
import type { Principal } from '../../shared/principal.ts';
import { type Audited, record } from './record.ts';
import { auditOf } from './settings.ts';

const CALLS: ReadonlySet<string> = new Set(['tools/call', 'prompts/get', 'resources/read']);
/** Of arguments, and of a result, in characters. */
const MAX_PAYLOAD = 16 * 1024;

/** Serves a message, and writes down what was asked for, and with `full` what with and what came of it. */
export async function recordingCall(
  audited: Audited & { readonly principal: Principal },
  message: JsonRpcMessage,
  serve: () => Promise<Response>,
): Promise<Response> {
  const { payloads } = auditOf(audited.env);
  if (payloads === 'none' || !isRequest(message) || !CALLS.has(message.method)) return await serve();
  const { name, uri, arguments: args } = message.params ?? {};
  const detail = { name: nameFrom(name ?? uri).slice(0, 1024) };
  const response = await serve();
  if (payloads === 'metadata') {
    record(audited, { kind: 'call', action: message.method, detail: { ...detail, status: response.status } });
    return response;
  }
  const done = (answer: string) =>
    record(audited, {
      kind: 'call',
      action: message.method,
      detail: { ...detail, arguments: cut(JSON.stringify(args) ?? ''), status: response.status, answer },
    });
  return overheard(response, done);
}

/** The response as it was; `done` gets the end of its body, where the result of a stream is. */
function overheard(response: Response, done: (text: string) => void): Response {
  if (!response.body) {
    done('');
    return response;
  }
  const decoder = new TextDecoder();
  let text = '';
  const through = new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      text = (text + decoder.decode(chunk, { stream: true })).slice(-MAX_PAYLOAD);
      controller.enqueue(chunk);
    },
    flush: () => done(text),
    cancel: () => done(text),
  });
  return new Response(response.body.pipeThrough(through), response);
}

const cut = (text: string): string => (text.length <= MAX_PAYLOAD ? text : `${text.slice(0, MAX_PAYLOAD)}…`);
