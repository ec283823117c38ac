/** A fault of ours that a server's message finds costs that message, and nothing else. */
import { expect, test, vi } from 'vitest';
import type { ChannelEvents } from '../../origin/bridge/channel.ts';
import { Correlator } from '../../origin/bridge/correlate.ts';
import { Peer } from '../../origin/bridge/peer.ts';
import type { JsonRpcMessage } from '../../shared/jsonrpc.ts';

const quiet = () => undefined;

/** A peer whose server is the test. */
function peerWith({ correlator, unasked }: { correlator: Correlator; unasked: () => void }) {
  const error = vi.fn();
  const sent: JsonRpcMessage[] = [];
  let events!: ChannelEvents;
  const peer = new Peer({
    server: 'notes',
    mode: 'own',
    open: (given) => {
      events = given;
      const send = (message: JsonRpcMessage) => void sent.push(message);
      return { send, abandon: () => false, unread: 0, closed: new Promise(quiet), end: async () => undefined };
    },
    correlator,
    log: { debug: quiet, info: quiet, warn: quiet, error, server: quiet, machine: quiet },
    sync: async () => undefined,
    unasked,
  });
  peer.attach('s');
  const settled = vi.fn();
  peer.request(
    's',
    { jsonrpc: '2.0', id: 'a', method: 'ping' },
    { open: true, message: quiet, answer: settled, fail: settled },
  );
  const [asked] = sent as { id: number }[];
  return { events, error, settled, id: asked?.id ?? -1 };
}

test('a message that cannot be handled is reported, and the calls in flight go on', async () => {
  const unasked = () => {
    throw new TypeError('a fault');
  };
  const { events, error, settled, id } = peerWith({ correlator: new Correlator('own', 'nonce'), unasked });
  events.message({ jsonrpc: '2.0', method: 'notifications/prompts/list_changed' });
  expect(error).toHaveBeenCalledExactlyOnceWith(
    expect.stringMatching(/^server notes: .* could not be handled: TypeError: a fault/),
  );
  expect(settled).not.toHaveBeenCalled();
  events.message({ jsonrpc: '2.0', id, result: { fine: true } });
  await vi.waitFor(() => expect(settled).toHaveBeenCalledOnce());
  expect(settled).toHaveBeenCalledWith({ jsonrpc: '2.0', id: 'a', result: { fine: true } });
});

test('an answer that cannot be handled fails its call', () => {
  class Faulty extends Correlator {
    override fromServer(message: JsonRpcMessage) {
      if ('result' in message) throw new TypeError('a fault');
      return super.fromServer(message);
    }
  }
  const { events, error, settled, id } = peerWith({ correlator: new Faulty('own', 'nonce'), unasked: quiet });
  events.message({ jsonrpc: '2.0', id, result: {} });
  expect(error).toHaveBeenCalledOnce();
  expect(settled).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ code: 'internal' }));
});
