/** A stream that something may end, however it ends. */
import { expect, test, vi } from 'vitest';
import { type End, endable } from '../../edge/endable.ts';

const HEADERS = { 'content-type': 'text/event-stream', 'x-kept': 'yes' };

/** A stream that is written by hand, what ends it, and what is told when it is over. */
function stream() {
  let source!: ReadableStreamDefaultController<Uint8Array>;
  const cancelled = vi.fn();
  const left = vi.fn();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      source = controller;
    },
    cancel: cancelled,
  });
  let end!: End;
  const response = endable(new Response(body, { headers: HEADERS }), (given) => {
    end = given;
    return left;
  });
  return { source, cancelled, left, end, response };
}

test('what is written passes, with the headers; its own end ends it', async () => {
  const { source, left, response, end } = stream();
  source.enqueue(new TextEncoder().encode(': a\n\n'));
  source.close();
  expect(response.headers.get('x-kept')).toBe('yes');
  expect(await response.text()).toBe(': a\n\n');
  expect(left).toHaveBeenCalledOnce();
  end('too late', 'failure');
  expect(left).toHaveBeenCalledOnce();
});

test('an end closes it, a failure breaks it; what is behind it is left, once', async () => {
  for (const failure of [undefined, 'failure'] as const) {
    const { cancelled, left, end, response } = stream();
    const read = response.text();
    end('enough', failure);
    end('again');
    if (failure) await expect(read).rejects.toThrow('enough');
    else expect(await read).toBe('');
    expect(cancelled).toHaveBeenCalledExactlyOnceWith('enough');
    expect(left).toHaveBeenCalledOnce();
  }
});

test('it breaks with what is behind it, and a reader that leaves, leaves what is behind it', async () => {
  const broken = stream();
  broken.source.error(new Error('torn'));
  await expect(broken.response.text()).rejects.toThrow('torn');
  expect(broken.left).toHaveBeenCalledOnce();

  const gone = stream();
  await gone.response.body?.cancel('gone');
  expect(gone.left).toHaveBeenCalledOnce();
  expect(gone.cancelled).toHaveBeenCalledExactlyOnceWith('gone');
});

test('what is over before it began is closed and left', async () => {
  const left = vi.fn();
  const body = new ReadableStream<Uint8Array>();
  const response = endable(new Response(body, { headers: HEADERS }), (end) => {
    end('at once');
    return left;
  });
  expect(await response.text()).toBe('');
  expect(left).toHaveBeenCalledOnce();
});

test('another response passes as it is, and nothing begins', () => {
  const begin = vi.fn();
  const json = Response.json({});
  expect(endable(json, begin)).toBe(json);
  expect(begin).not.toHaveBeenCalled();
});
