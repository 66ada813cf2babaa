import type { Logger } from 'pino';

import { randomUuid } from '../protocol/challenge.js';
import { BackendClient } from './backend-client.js';
import { Grants } from './grants.js';
import { KnownPeers } from './known-peers.js';
import type { Metrics } from './metrics.js';
import type { BackendMode, Options } from './options.js';
import { StateFile } from './state-file.js';
import { UsageBook } from './usage-book.js';

/** What only a server with a control plane has. */
export interface Plane {
  readonly identity: BackendMode & { readonly instanceId: string };
  readonly client: BackendClient;
  readonly grants: Grants;
  readonly book: UsageBook;
  readonly peers: KnownPeers;
  /** None when another process has it, or nothing can be kept there. */
  readonly stateFile: StateFile | undefined;
}

/** What was kept by the process before, and where to keep more. */
export async function openPlane(
  options: Options,
  backend: BackendMode,
  metrics: Metrics,
  logger: Logger,
): Promise<Plane> {
  const { serverId, apiKeys, url } = backend;
  const file: StateFile = new StateFile(
    options.dataDir,
    serverId,
    apiKeys,
    logger,
    () => ({ grants: grants.kept(), book: book.state(), peers: peers.kept() }),
    () => metrics.stateSaveFailures.inc(),
  );
  const isOurs = await file.lock().catch((err: unknown) => {
    logger.error({ err, folder: options.dataDir }, 'nothing can be kept on disk');
    return false;
  });
  if (!isOurs) logger.warn({ folder: options.dataDir }, 'works without a state file: another process may have it');
  const stateFile = isOurs ? file : undefined;
  const state = await stateFile?.load();
  const grants: Grants = new Grants(state?.grants ?? [], options.limits.grantTtlSeconds * 1000, () =>
    stateFile?.saveSoon(),
  );
  const peers: KnownPeers = new KnownPeers(state?.peers, () => stateFile?.saveSoon());
  const book: UsageBook = new UsageBook(state?.book, () => metrics.recordsLost.inc());
  return {
    identity: { ...backend, instanceId: randomUuid() },
    client: new BackendClient(url, apiKeys[0] ?? '', logger),
    grants,
    book,
    peers,
    stateFile,
  };
}
