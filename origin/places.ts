/**
 * Owns which machine serves a caller, and the folders of machines that are a caller's own: whose each is, when it was last
 * used, found again after a restart.
 *
 * A grant's machine key is made again here from its principal and session, and must be the same: the origin's own
 * configuration decides the isolation, not what the edge knew of it. `owner.json` in a machine's folder says whose it is;
 * its time is that of the last use. A session's id is kept nowhere: the folder's name has its digest.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { isolationOf } from '../shared/config/entry.ts';
import { MoorageError } from '../shared/errors.ts';
import type { Grant } from '../shared/grant.ts';
import { machineKeyOf } from '../shared/machine-key.ts';
import type { Own, ServerDefinition } from './server.ts';

/** A caller's own machine. */
export interface Place {
  readonly key: string;
  readonly own: Own;
}

/**
 * The definition as it holds for this caller. @throws MoorageError `route_stale` for a machine that is not the caller's,
 * `forbidden_server` for a copy of another principal's.
 */
export async function placed(definition: ServerDefinition, grant: Grant): Promise<ServerDefinition> {
  const { fork, name } = definition;
  if (fork?.principal !== undefined && fork.principal !== grant.principal) {
    throw new MoorageError(
      'forbidden_server',
      `"${name}" is a copy of one principal's machine, and serves that one alone.`,
    );
  }
  const isolation = isolationOf(definition.entry);
  const key = await machineKeyOf(definition.machine, isolation, grant);
  if (key !== grant.machine) {
    throw new MoorageError('route_stale', `The machine of server "${definition.name}" is not what the grant says.`);
  }
  if (isolation === 'server') return definition;
  return placedAt(definition, { key, own: { isolation, home: definition.machine, principal: grant.principal } });
}

export const placedAt = (definition: ServerDefinition, { key, own }: Place): ServerDefinition => ({
  ...definition,
  machine: key,
  own,
});

/** Name in the configuration of the machine that a server runs in, or that its machine was made after. */
export const homeOf = ({ machine, own, fork }: Pick<ServerDefinition, 'machine' | 'own' | 'fork'>): string =>
  own?.home ?? fork?.home ?? machine;

const OWNER = 'owner.json';
const ownSchema = z.object({
  isolation: z.enum(['principal', 'session']),
  home: z.string(),
  principal: z.string(),
});

/** The file that says whose a machine is, by its name. */
export const ownerFile = (own: Own): Readonly<Record<string, string>> => ({ [OWNER]: JSON.stringify(own) });

/** Notes whose the machine in this folder is, which is thereby made. */
export function noteOwner(dir: string, own: Own): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const draft = join(dir, `${OWNER}.tmp`);
  writeFileSync(draft, JSON.stringify(own), { mode: 0o600 });
  renameSync(draft, join(dir, OWNER));
}

/** Says that the machine in this folder is in use. `now` is in milliseconds. */
export function noteUse(dir: string, now: number): void {
  try {
    utimesSync(join(dir, OWNER), now / 1000, now / 1000);
  } catch {
    // It was not made yet, or is being removed.
  }
}

/** Callers' own machines below `folder`, with their last use in milliseconds. What cannot be read is none. */
export function placesIn(folder: string): (Place & { readonly usedAt: number })[] {
  return folders(folder).flatMap((key) => {
    const file = join(folder, key, OWNER);
    try {
      const own = ownSchema.safeParse(JSON.parse(readFileSync(file, 'utf8')));
      return own.success ? [{ key, own: own.data, usedAt: statSync(file).mtimeMs }] : [];
    } catch {
      return [];
    }
  });
}

function folders(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
