/** Prisma's messages show the code around a call. */
const MESSAGE_CHARS_MAX = 2_000;
/** Some thirty calls. */
const STACK_CHARS_MAX = 6_000;
/** An error, what caused it, and what caused that. */
const CAUSES_MAX = 3;

/** What of an error is logged. Whatever else it carries (a command of Redis, a row, a request with its headers) is not. */
interface ReducedError {
  readonly type: string;
  readonly message: string;
  readonly code?: string | number;
  /** Of the error itself only: causes were mostly made in the same place. */
  readonly stack?: string;
  readonly cause?: ReducedError;
}

/** Of anything that was thrown, what may be logged. */
export function reducedError(thrown: unknown): ReducedError {
  return reduced(thrown, CAUSES_MAX);
}

function reduced(thrown: unknown, causes: number): ReducedError {
  if (!(thrown instanceof Error)) {
    const message = typeof thrown === 'string' ? thrown.slice(0, MESSAGE_CHARS_MAX) : '';
    return { type: typeof thrown, message };
  }
  const code = 'code' in thrown ? thrown.code : undefined;
  return {
    type: thrown.name.slice(0, 100),
    message: thrown.message.slice(0, MESSAGE_CHARS_MAX),
    ...((typeof code === 'string' || typeof code === 'number') && {
      code: typeof code === 'string' ? code.slice(0, 100) : code,
    }),
    ...(causes === CAUSES_MAX && thrown.stack !== undefined && { stack: thrown.stack.slice(0, STACK_CHARS_MAX) }),
    ...(causes > 1 && thrown.cause !== undefined && { cause: reduced(thrown.cause, causes - 1) }),
  };
}
