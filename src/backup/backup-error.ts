/** A backup could not be made, checked or restored; the message is one sentence for the operator. */
export class BackupError extends Error {
  override readonly name = 'BackupError';
}

/** What a failure is called in that sentence. */
export function reasonOf(error: unknown): string {
  if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') return 'the disk is full';
  if (error instanceof Error && error.name === 'TimeoutError') return 'it took longer than --timeout allows';
  return error instanceof Error ? error.message : String(error);
}
