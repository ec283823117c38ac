/** What the audit holds of calls, on a real workerd: no more than the owner asked for. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { auditPage, auditText } from '../../shared/audit.ts';
import { importKey } from '../../shared/grant.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import { edgeUnderTest, type UnderTest, WireClient } from './edge-under-test.ts';
import { postModern } from './modern-client.ts';
import { keyPair } from './scripted-origin.ts';

const ROOT = new URL('../..', import.meta.url).pathname;
const CALL = { name: 'get_current_time', arguments: { timezone: 'Pacific/Chatham' } };

describe.each(['none', 'metadata', 'full'])('payloads: %s', (payloads) => {
  let edge: UnderTest;
  let records: () => Promise<Record<string, unknown>[]>;

  beforeAll(async () => {
    const owner = await keyPair();
    const key = await importKey(owner.privateJwk);
    edge = await edgeUnderTest(
      { time: join(ROOT, 'servers/time.ts') },
      {
        settings: {
          MOORAGE_AUDIT: JSON.stringify({ payloads }),
          MOORAGE_OWNER_KEY: JSON.stringify(owner.publicJwk),
        },
      },
    );
    records = async () => {
      const authorization = `Bearer ${await signOwnerToken(key, edge.url, crypto.randomUUID(), Date.now())}`;
      const page = await fetch(`${edge.url}/admin/api/audit`, { headers: { authorization } });
      return auditPage.parse(await page.json()).entries.map(({ text }) => auditText.parse(JSON.parse(text)));
    };
  });
  afterAll(() => edge.stop());

  test('of calls in both eras', async () => {
    const client = new WireClient(() => edge.url, 'time');
    await client.initialize();
    await client.call('tools/list');
    expect(await client.call('tools/call', CALL)).toMatchObject({ result: { content: [{ type: 'text' }] } });
    const modern = await postModern(`${edge.url}/time/mcp`, 'tools/call', CALL);
    expect(await modern.text()).toContain('Chatham');
    // A denial is written down with any setting, and after the calls: the record of one that was written is there by then.
    await fetch(`${edge.url}/admin/api/whoami`);
    const calls = await vi.waitFor(async () => {
      const all = await records();
      const found = all.filter(({ kind }) => kind === 'call');
      expect(all.map(({ kind }) => kind)).toContain('denied');
      expect(found).toHaveLength(payloads === 'none' ? 0 : 2);
      return found;
    }, 10_000);
    const text = JSON.stringify(await records());
    for (const call of calls) {
      expect(call).toMatchObject({ action: 'tools/call', subject: 'anonymous', server: 'time', address: '127.0.0.1' });
      if (payloads === 'metadata') expect(call.detail).toEqual({ name: CALL.name, status: 200 });
      else {
        const answer = expect.stringContaining('Pacific/Chatham');
        expect(call.detail).toEqual({ ...CALL, arguments: JSON.stringify(CALL.arguments), status: 200, answer });
      }
    }
    // Neither what a call was made with nor what came of it, in whatever place.
    expect(text.includes('Chatham')).toBe(payloads === 'full');
    expect(text.includes('timezone')).toBe(payloads === 'full');
  });
});
