/**
 * The one error class of the microVM half. An expected failure (a tool is missing, a guest hangs, an image cannot be
 * built) carries a stable `code` for programs and a message that tells a person what to do next.
 */
export type MachineErrorCode =
  | 'host-unsupported'
  | 'host-tool-missing'
  | 'install-failed'
  | 'package-unavailable'
  | 'image-build-failed'
  | 'image-unavailable'
  | 'app-install-failed'
  | 'app-bin-missing'
  | 'command-unsupported'
  | 'cache-locked'
  | 'machine-busy'
  | 'disk-unusable'
  | 'qemu-failed'
  | 'boot-timeout'
  | 'boot-aborted'
  | 'machine-gone'
  | 'hibernate-failed'
  | 'snapshot-unusable'
  | 'fork-failed'
  | 'guest-protocol'
  | 'guest-timeout'
  | 'spawn-failed'
  | 'too-many-processes';

/** An expected failure of a machine, its image or its host. `detail` holds raw output (bounded by whoever throws). */
export class MachineError extends Error {
  override readonly name = 'MachineError';
  readonly code: MachineErrorCode;
  readonly detail: string | undefined;

  constructor(code: MachineErrorCode, message: string, options: { detail?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.detail = options.detail;
  }
}
