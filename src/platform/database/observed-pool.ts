import pg from 'pg';

/** Whose connections they are; those of all replicas count together. */
export const POOL_NAMES = ['primary', 'replica'] as const;
export type PoolName = (typeof POOL_NAMES)[number];

/** A pool of connections as it is now. */
export interface PoolFigures {
  readonly name: PoolName;
  readonly used: number;
  readonly idle: number;
  /** Callers that wait for a connection. */
  readonly waiting: number;
  readonly max: number;
}

/** A pool that says how long each caller has waited for its connection. */
export class ObservedPool extends pg.Pool {
  /** @param onWaited seconds, also when there was none to be had in the end */
  constructor(
    private readonly name: PoolName,
    config: pg.PoolConfig,
    private readonly onWaited: (name: PoolName, seconds: number) => void,
  ) {
    super(config);
  }

  /** Every query comes through here too: node-postgres asks with a callback then. */
  override connect(): Promise<pg.PoolClient>;
  override connect(callback: Parameters<pg.Pool['connect']>[0]): void;
  override connect(callback?: Parameters<pg.Pool['connect']>[0]): Promise<pg.PoolClient> | void {
    const began = performance.now();
    const waited = (): void => this.onWaited(this.name, (performance.now() - began) / 1000);
    if (callback === undefined) return super.connect().finally(waited);
    super.connect((error, client, done) => {
      waited();
      callback(error, client, done);
    });
  }

  get figures(): PoolFigures {
    const { name, idleCount: idle, totalCount, waitingCount: waiting, options } = this;
    return { name, used: totalCount - idle, idle, waiting, max: options.max };
  }
}
