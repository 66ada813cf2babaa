/** What a check comes to. */

/** `not-checked`: nobody knows. It is not a failure, but it is not good news either. */
export type Status = 'pass' | 'fail' | 'not-checked';

export interface Finding {
  readonly status: Status;
  /** What was seen, in a sentence. Never holds a secret. */
  readonly found: string;
  /** What to do about it, where it is not good. */
  readonly mend?: string;
}

/** One line of the checklist. */
export interface Check {
  /** Stable: for scripts that read the JSON. */
  readonly id: string;
  readonly title: string;
  /** It changes nothing. What it throws counts as failed. */
  readonly run: () => Finding | Promise<Finding>;
}

/** Checks under one heading. */
export interface Group {
  readonly name: string;
  readonly checks: readonly Check[];
}

export const pass = (found: string): Finding => ({ status: 'pass', found });
export const fail = (found: string, mend: string): Finding => ({ status: 'fail', found, mend });
export const notChecked = (found: string, mend?: string): Finding => ({
  status: 'not-checked',
  found,
  ...(mend !== undefined && { mend }),
});

/** The message of whatever was thrown; a failed fetch has its own in its cause. */
export function reasonOf(error: unknown): string {
  if (error instanceof TypeError && error.cause !== undefined) return reasonOf(error.cause);
  // of several addresses, all refused: the text is in the first
  if (error instanceof AggregateError && error.errors[0] instanceof Error) return error.errors[0].message;
  return error instanceof Error ? error.message : String(error);
}

/** A list for people: the first few, and how many more. */
export function listed(items: readonly string[], shown = 5): string {
  const rest = items.length - shown;
  return items.slice(0, shown).join(', ') + (rest > 0 ? ` and ${rest} more` : '');
}
