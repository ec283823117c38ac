/** Owns what is known of a person who logged in. */

/** Who a token speaks for; the library keeps it encrypted with the token itself. */
export interface Holder {
  readonly subject: string;
  readonly issuer: string;
  readonly name?: string;
  readonly groups: readonly string[];
}
