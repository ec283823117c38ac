/** The Worker's entry: requests go to `routes.ts`; the Durable Object classes are named here for the runtime. */
import { routes } from './routes.ts';

export { Aggregate } from './aggregate/object.ts';
export { Audit } from './audit/object.ts';
export { OAuthStore } from './auth/oauth/object.ts';
export { Tokens } from './auth/tokens/object.ts';
export { Directory } from './directory/object.ts';
export { Lane } from './lane/object.ts';
export { Limiter } from './limits/object.ts';
export { Origin } from './origin/object.ts';
export { Session } from './session/object.ts';

export default { fetch: routes.fetch };
