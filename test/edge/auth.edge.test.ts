/** Who gets in at a real workerd, by each kind of credential, and what those who do not are told. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { importKey } from '../../shared/grant.ts';
import { signOwnerToken } from '../../shared/owner.ts';
import { edgeUnderTest, type UnderTest } from './edge-under-test.ts';
import { keyPair } from './scripted-origin.ts';

const BASE = 'https://mcp.example.com';

let edge: UnderTest;
let ownerToken: () => Promise<string>;

beforeAll(async () => {
  const owner = await keyPair();
  const key = await importKey(owner.privateJwk);
  ownerToken = () => signOwnerToken(key, crypto.randomUUID(), Date.now());
  edge = await edgeUnderTest(
    {},
    {
      settings: {
        MOORAGE_AUTH: JSON.stringify({ tokens: true }),
        MOORAGE_PUBLIC_URL: BASE,
        MOORAGE_OWNER_KEY: JSON.stringify(owner.publicJwk),
      },
    },
  );
});
afterAll(() => edge.stop());

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${edge.url}${path}`, { headers });
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

describe('without a credential', () => {
  test.each([
    ['/notes/mcp', `scope="server:notes", resource_metadata="${BASE}/.well-known/oauth-protected-resource/notes/mcp"`],
    ['/mcp', `scope="mcp", resource_metadata="${BASE}/.well-known/oauth-protected-resource/mcp"`],
    ['/admin/api/whoami', `scope="admin", resource_metadata="${BASE}/.well-known/oauth-protected-resource/admin/api"`],
  ])('%s is refused with a challenge', async (path, challenge) => {
    const response = await get(path);
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toBe(`Bearer ${challenge}`);
  });

  test('the metadata of a server is its own, and exact', async () => {
    const response = await get('/.well-known/oauth-protected-resource/notes/mcp');
    expect(await response.json()).toEqual({
      resource: `${BASE}/notes/mcp`,
      resource_name: 'Moorage /notes/mcp',
      scopes_supported: ['server:notes', 'mcp'],
      bearer_methods_supported: ['header'],
    });
  });
});

describe('the owner', () => {
  test('administers', async () => {
    const response = await get('/admin/api/whoami', bearer(await ownerToken()));
    expect(await response.json()).toMatchObject({ subject: 'owner', scopes: ['admin', 'mcp'] });
  });

  test('is not believed with another key', async () => {
    const key = await importKey((await keyPair()).privateJwk);
    const response = await get('/admin/api/whoami', bearer(await signOwnerToken(key, 'x', Date.now())));
    expect(response.status).toBe(401);
    expect(response.headers.get('www-authenticate')).toContain('error="invalid_token"');
  });
});
