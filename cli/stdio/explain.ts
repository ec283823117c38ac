/** Owns what a stdio client is told when its router gave no answer. Pure. */
import { z } from 'zod';
import { MoorageError } from '../../shared/errors.ts';
import { failure, type JsonRpcFailure, type JsonRpcRequest } from '../../shared/jsonrpc.ts';
import type { Failure } from './remote.ts';

const refusalBody = z.object({
  error: z.looseObject({ code: z.number(), message: z.string(), data: z.unknown().optional() }),
});

/** The answer to a request whose exchange failed. A router's own words are passed on. */
export function failedAnswer({ id, method }: JsonRpcRequest, failed: Failure): JsonRpcFailure {
  if (failed.kind === 'refused') {
    const told = refusalBody.safeParse(parsed(failed.text));
    if (told.success) return { jsonrpc: '2.0', id, error: advised(failed.status, told.data.error) };
  }
  return failure(id, explain(failed, method));
}

const TOKEN_ADVICE =
  'Put a token into "MOORAGE_TOKEN" in the environment of this command: "moorage token create --name NAME" makes one.';

/** How its callers come by a credential is nothing that a router can tell them; those of this command read it here. */
const advised = (status: number, error: JsonRpcFailure['error']): JsonRpcFailure['error'] =>
  status === 401 ? { ...error, message: `${error.message} ${TOKEN_ADVICE}` } : error;

/** Methods whose repetition does no harm: whether they arrived does not matter. */
const REPEATABLE =
  /^(initialize|ping|server\/discover|subscriptions\/listen|completion\/complete|logging\/setLevel|prompts\/get|[\w/]+\/list|resources\/(read|subscribe|unsubscribe)|tasks\/(get|result|cancel))$/;

function explain(failed: Failure, method: string): MoorageError {
  switch (failed.kind) {
    case 'lost':
      return new MoorageError('session_not_found', 'The router lost this session again as soon as it was opened.');
    case 'unsent':
      return new MoorageError(
        'edge_away',
        `The router cannot be reached (${failed.reason}). Nothing was done: try again when it is back.`,
      );
    case 'broken':
      if (REPEATABLE.test(method)) {
        return new MoorageError(
          'edge_away',
          `The connection to the router broke while ${method} was running (${failed.reason}). Try again.`,
        );
      }
      return new MoorageError(
        'outcome_unknown',
        `The connection to the router broke while ${method} was running (${failed.reason}). It may or may not have taken effect: check before you repeat it.`,
      );
    case 'refused':
      if (failed.status >= 300 && failed.status < 400) {
        return new MoorageError(
          'edge_away',
          `What stands in front of the router leads elsewhere, such as to a login (HTTP ${failed.status}). Behind Cloudflare Access put a service token into MOORAGE_EDGE_ACCESS in the environment of this command.`,
        );
      }
      return failed.status === 401 || failed.status === 403
        ? new MoorageError(
            'authentication_required',
            `The router lets nobody in without a valid token (HTTP ${failed.status}). ${TOKEN_ADVICE} Behind Cloudflare Access, put a service token into MOORAGE_EDGE_ACCESS.`,
          )
        : new MoorageError(
            'edge_away',
            `What answers at the router's address is not a router (HTTP ${failed.status}).`,
          );
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A page of whatever stands in between.
    return undefined;
  }
}
