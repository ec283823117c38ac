/** Owns the failure that its user can mend in the command line: told in one message, exit code 2. */

export class UsageError extends Error {
  override readonly name = 'UsageError';
}
