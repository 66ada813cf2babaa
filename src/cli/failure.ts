/** The program cannot go on; the message is the sentence that the person at the terminal is told. */
export class Failure extends Error {
  override readonly name: string = 'Failure';

  /** @param exitCode 1: refused or failed, 2: not understood, 130: interrupted */
  constructor(
    message: string,
    readonly exitCode: 1 | 2 | 130 = 1,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}
