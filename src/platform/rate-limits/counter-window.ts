/** So much of something in so much time, counted from the first. */
export interface CounterWindow {
  /** What is counted, and of whom. Windows that are taken from together share a `{hash tag}`, so that a cluster keeps them in one place. */
  readonly key: string;
  readonly quota: number;
  readonly seconds: number;
}

/** What taking one from some windows came to. */
export interface Taken {
  /** False: one of them had nothing left, and nothing was taken from any. */
  readonly granted: boolean;
  /** Of each window, in the order given. */
  readonly windows: readonly { readonly left: number; readonly resetMs: number }[];
}

/** Seconds until a refused caller may find something left in every window. */
export function retryAfterOf({ windows }: Taken): number {
  const empty = windows.filter(({ left }) => left === 0);
  return Math.max(1, ...empty.map(({ resetMs }) => Math.ceil(resetMs / 1000)));
}
