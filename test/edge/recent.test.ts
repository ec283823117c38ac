/** How long an isolate believes that an origin is trusted: what `docs/origins.md` says of a revoked one. */
import { expect, test } from 'vitest';
import { KNOWN_FOR_MS, Recent } from '../../edge/enrolment/recent.ts';

test('an origin that was revoked is known for five seconds at most, and one that came back is known again', async () => {
  expect(KNOWN_FOR_MS).toBe(5_000);
  const trusted = new Map([['office', 'key']]);
  let asked = 0;
  const recent = new Recent<string>();
  const at = (now: number, id = 'office') =>
    recent.of(id, now, async () => {
      asked++;
      return trusted.get(id);
    });
  expect(await at(0)).toBe('key');
  trusted.delete('office');
  expect(await at(4_999)).toBe('key');
  expect(asked).toBe(1);
  expect(await at(5_000)).toBeUndefined();
  trusted.set('office', 'another');
  expect(await at(9_999)).toBeUndefined();
  expect(await at(10_000)).toBe('another');
  expect(await at(10_000, 'elsewhere')).toBeUndefined();
  expect(asked).toBe(4);
});
