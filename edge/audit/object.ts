/** Owns the Audit object: one ledger for the whole edge, with an alarm while something is counted or kept. */
import { DurableObject } from 'cloudflare:workers';
import type { AuditEvent, AuditPage } from '../../shared/audit.ts';
import type { Env } from '../env.ts';
import { Ledger, REPEAT_MS } from './ledger.ts';
import { auditOf } from './settings.ts';

const DAY_MS = 24 * 60 * 60 * 1000;

export class Audit extends DurableObject<Env> {
  readonly #ledger: Ledger;

  constructor(state: DurableObjectState, env: Env) {
    super(state, env);
    this.#ledger = new Ledger(state.storage.sql);
  }

  async add(event: AuditEvent): Promise<void> {
    await this.#ledger.add({ at: Date.now(), ...(event as AuditEvent & { detail?: Record<string, unknown> }) });
    await this.#wake(event.kind === 'denied' ? REPEAT_MS : DAY_MS);
  }

  page(after: number, since: number): AuditPage {
    return this.#ledger.page(after, since);
  }

  override async alarm(): Promise<void> {
    const now = Date.now();
    const counting = await this.#ledger.settle(now);
    this.#ledger.prune(now - auditOf(this.env).days * DAY_MS);
    await this.#wake(counting ? REPEAT_MS : DAY_MS);
  }

  async #wake(within: number): Promise<void> {
    const at = await this.ctx.storage.getAlarm();
    if (at === null || at > Date.now() + within) await this.ctx.storage.setAlarm(Date.now() + within);
  }
}

export const auditObjectOf = (env: Env): DurableObjectStub<Audit> => env.AUDIT.get(env.AUDIT.idFromName('audit'));
