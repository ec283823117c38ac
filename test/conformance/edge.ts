/**
 * The fixture as an edge server module: the default export makes one server per connection.
 */
import { createFixture } from './fixture.ts';

export default () => createFixture();
