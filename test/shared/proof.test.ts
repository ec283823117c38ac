/** A request to an origin is the edge's own, whole, and taken once. */
import fc from 'fast-check';
import { generateKeyPair } from 'jose';
import { describe, expect, test } from 'vitest';
import { Replays } from '../../origin/replays.ts';
import { type EdgeKeys, signGrant } from '../../shared/grant.ts';
import { type Asked, PROOF_LIFE_S, signProof, verifyProof } from '../../shared/proof.ts';

const NOW = Date.UTC(2026, 10, 25);
const edge = await generateKeyPair('EdDSA');
const next = await generateKeyPair('EdDSA');
const stranger = await generateKeyPair('EdDSA');
const keys: EdgeKeys = [edge.publicKey];
const asked = {
  method: 'POST',
  path: '/v1/messages',
  headers: [
    ['Content-Type', 'application/json'],
    ['Moorage-Era', 'modern'],
    ['Mcp-Param-Region', 'eu'],
  ] as [string, string][],
  grant: 'a.grant.jws',
  body: new TextEncoder().encode('{"jsonrpc":"2.0","method":"ping","id":1}'),
} satisfies Asked;
const sign = (over: Partial<Asked> = {}, key = edge.privateKey) =>
  signProof(key, 'home', { ...asked, ...over }, crypto.randomUUID(), NOW);
const refused = (promise: Promise<unknown>) => expect(promise).rejects.toMatchObject({ code: 'grant_invalid' });

describe('a proof', () => {
  test('covers the request as it arrives, whatever a proxy does to the case and order of headers', async () => {
    const headers = [...asked.headers].reverse().map(([name, value]) => [name.toLowerCase(), ` ${value}`] as const);
    const proof = await verifyProof(keys, await sign(), 'home', { ...asked, headers: [...headers, ['via', 'x']] }, NOW);
    await expect(proof.covers(asked.body)).resolves.toBe(true);
    await expect(proof.covers(new TextEncoder().encode('{}'))).resolves.toBe(false);
    await expect(proof.covers(null)).resolves.toBe(false);
  });

  test.each<[string, Partial<Asked>]>([
    ['method', { method: 'DELETE' }],
    ['path', { path: '/v1/session' }],
    ['grant', { grant: 'another.grant.jws' }],
    ['added header of ours', { headers: [...asked.headers, ['moorage-replay', '1']] }],
    ['removed header of ours', { headers: asked.headers.slice(0, 1) }],
    ['changed parameter', { headers: [...asked.headers.slice(0, 2), ['Mcp-Param-Region', 'us']] }],
  ])('of another %s is refused', async (_, over) => {
    await refused(verifyProof(keys, await sign(), 'home', { ...asked, ...over }, NOW));
  });

  test('of another key, for another origin, old, early, or of another kind is refused', async () => {
    await refused(verifyProof(keys, await sign({}, stranger.privateKey), 'home', asked, NOW));
    await refused(verifyProof(keys, await sign(), 'office', asked, NOW));
    await refused(verifyProof(keys, await sign(), 'home', asked, NOW + (PROOF_LIFE_S + 61) * 1000));
    await refused(verifyProof(keys, await sign(), 'home', asked, NOW - 61_000));
    const claims = { origin: 'home', principal: 'p', server: 's', machine: 'm', session: 'i' };
    await refused(verifyProof(keys, await signGrant(edge.privateKey, claims, NOW), 'home', asked, NOW));
  });

  test('may come from either key while the edge changes its key', async () => {
    const both: EdgeKeys = [next.publicKey, edge.publicKey];
    for (const key of [edge.privateKey, next.privateKey])
      await verifyProof(both, await sign({}, key), 'home', asked, NOW);
  });
});

describe('what was used', () => {
  const proof = (id: string, madeAt: number) => ({
    id,
    madeAt,
    goodUntil: madeAt + PROOF_LIFE_S * 1000,
    covers: () => Promise.resolve(true),
  });
  const code = (act: () => void): string => {
    try {
      act();
      return 'taken';
    } catch (error) {
      return (error as { code: string }).code;
    }
  };

  test('a proof from before the agent started is refused, by the clock of the edge', () => {
    const replays = new Replays(() => NOW);
    expect(code(() => replays.take(proof('a', NOW - 30_000)))).toBe('taken');
    replays.setEdgeClock(NOW + 20_000);
    expect(code(() => replays.take(proof('b', NOW + 19_999)))).toBe('grant_invalid');
    expect(code(() => replays.take(proof('c', NOW + 20_000)))).toBe('taken');
  });

  test('no proof is taken twice while it could be believed', () => {
    const uses = fc.array(fc.record({ id: fc.nat({ max: 20 }), wait: fc.nat({ max: 40_000 }) }), { maxLength: 60 });
    fc.assert(
      fc.property(uses, fc.integer({ min: -50_000, max: 50_000 }), (list, skew) => {
        let now = NOW;
        const replays = new Replays(() => now);
        replays.setEdgeClock(now + skew);
        const made = new Map<number, number>();
        const taken = new Set<number>();
        for (const { id, wait } of list) {
          now += wait;
          const madeAt = made.get(id) ?? now + skew;
          made.set(id, madeAt);
          // What is too old for `verifyProof` never gets here.
          if (now > madeAt + (PROOF_LIFE_S + 60) * 1000) continue;
          const result = code(() => replays.take(proof(String(id), madeAt)));
          expect(result).toBe(taken.has(id) ? 'grant_invalid' : 'taken');
          taken.add(id);
        }
      }),
    );
  });
});
