import { InjectQueue, Processor } from '@nestjs/bullmq';
import { Inject } from '@nestjs/common';
import type { Queue } from 'bullmq';
import type { Logger } from 'pino';
import { z } from 'zod';

import { AuditLogRepository } from '../audit/audit-log.repository.js';
import { AuthRetentionRepository } from '../auth/auth-retention.repository.js';
import { FleetFiguresRepository } from '../capacity/fleet-figures.repository.js';
import { SlotReconciliation } from '../capacity/slot-reconciliation.js';
import { EventsRepository } from '../events/events.repository.js';
import { CONFIG, type Config } from '../platform/config/config.js';
import { IdempotencyKeysRepository } from '../platform/idempotency/idempotency-keys.repository.js';
import { LOGGER } from '../platform/logging/logger.js';
import { QueueClients } from '../platform/queue/queue-clients.js';
import { QueueWatch } from '../platform/queue/queue-watch.js';
import { QueueWorker, WORKER_OPTIONS } from '../platform/queue/queue-worker.js';
import { ServersRepository } from '../servers/servers.repository.js';
import { LedgerRepository } from '../tunnels/ledger.repository.js';
import { QuarantineRepository } from '../tunnels/quarantine.repository.js';
import { RelocationService } from '../tunnels/relocation.service.js';
import { TunnelsRepository } from '../tunnels/tunnels.repository.js';
import { TunnelsService } from '../tunnels/tunnels.service.js';

/** The queue's name, also its label in metrics. */
export const HOUSEKEEPING_QUEUE = 'housekeeping';

/** Tunnels closed in one run, of each kind: bounded, so that a run ends before the next is due. */
const CLOSE_BATCH = 100;

/** Rows deleted by one statement: a tenth of a second of work, so that it holds nothing up. */
const FORGET_BATCH = 5_000;
/** Statements of one run, for each table: 100,000 rows a minute at most, some 140 million a day. */
const FORGET_BATCHES_MAX = 20;
/** No bore-server holds one report back so long and then sends it again: only that needs the reporter's last sequence. */
const REPORTER_RETENTION_DAYS = 90;

const Task = z.enum([
  'close-due-tunnels',
  'lose-expired-servers',
  'relocate-tunnels',
  'reconcile-counters',
  'forget-old-records',
  'measure-fleet',
]);
type Task = z.infer<typeof Task>;

/**
 * Tasks that are done less often than the others, by how much: once a minute at the default. Old records are kept for days;
 * counters are wrong only when somebody has changed them by hand, and are compared with all open tunnels. The fleet is measured
 * as often as Prometheus usually asks.
 */
const INTERVAL_FACTORS: Partial<Record<Task, number>> = {
  'forget-old-records': 12,
  'reconcile-counters': 12,
  'measure-fleet': 3,
};

/**
 * Ends what time has ended: server leases, tunnels that nobody connects or past their time to live, old records. One
 * scheduler for all backends; each run is of idempotent statements, so a run that is lost or doubled does no harm.
 */
@Processor(HOUSEKEEPING_QUEUE, WORKER_OPTIONS)
export class HousekeepingProcessor extends QueueWorker<Task> {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @Inject(LOGGER) private readonly logger: Logger,
    @InjectQueue(HOUSEKEEPING_QUEUE) queue: Queue,
    clients: QueueClients,
    watch: QueueWatch,
    private readonly servers: ServersRepository,
    private readonly tunnels: TunnelsRepository,
    private readonly tunnelsService: TunnelsService,
    private readonly relocation: RelocationService,
    private readonly slots: SlotReconciliation,
    private readonly fleet: FleetFiguresRepository,
    private readonly ledger: LedgerRepository,
    private readonly audit: AuditLogRepository,
    private readonly auth: AuthRetentionRepository,
    private readonly events: EventsRepository,
    private readonly quarantine: QuarantineRepository,
    private readonly idempotencyKeys: IdempotencyKeysRepository,
  ) {
    const interval = config.HOUSEKEEPING_INTERVAL_MS;
    const schedules = Task.options.map((task) => ({ task, everyMs: interval * (INTERVAL_FACTORS[task] ?? 1) }));
    super({ queue, logger, clients, watch }, Task.options, schedules);
  }

  protected perform(task: Task): Promise<void> {
    return this.tasks[task]();
  }

  private readonly tasks: Record<Task, () => Promise<void>> = {
    'close-due-tunnels': async () => {
      const closed = await this.tunnelsService.closeDue(CLOSE_BATCH);
      if (closed > 0) this.logger.info({ closed }, 'tunnels expired or abandoned');
    },
    'lose-expired-servers': async () => {
      const lost = await this.servers.loseExpired();
      const offline = await this.tunnels.setOfflineOnLostServers();
      if (lost.length > 0) this.logger.warn({ serverIds: lost, tunnels: offline }, 'bore-servers lost');
    },
    'relocate-tunnels': () => this.relocation.run(),
    'reconcile-counters': () => this.slots.run(),
    'measure-fleet': () => this.fleet.measure(),
    'forget-old-records': async () => {
      const { CONNECTION_RETENTION_DAYS, USAGE_RETENTION_DAYS, AUDIT_RETENTION_DAYS, EVENT_RETENTION_HOURS } =
        this.config;
      const deleted = {
        connections: await inBatches((n) => this.ledger.forgetConnections(CONNECTION_RETENTION_DAYS, n)),
        tunnelSessions: await inBatches((n) => this.ledger.forgetSessions(CONNECTION_RETENTION_DAYS, n)),
        idempotencyKeys: await inBatches((n) => this.idempotencyKeys.forget(n)),
        hours: await inBatches((n) => this.ledger.forgetUsage(USAGE_RETENTION_DAYS, n)),
        reporters: await inBatches((n) => this.ledger.forgetReporters(REPORTER_RETENTION_DAYS, n)),
        auditEntries: await inBatches((n) => this.audit.forget(AUDIT_RETENTION_DAYS, n)),
        events: await inBatches((n) => this.events.forget(EVENT_RETENTION_HOURS, n)),
        refreshTokens: await inBatches((n) => this.auth.forgetRefreshTokens(n)),
        sessions: await inBatches((n) => this.auth.forgetSessions(n)),
        portsInQuarantine: await inBatches((n) => this.quarantine.forgetEnded(n)),
        apiKeys: await inBatches((n) => this.auth.forgetApiKeys(n)),
      };
      if (Object.values(deleted).some((rows) => rows > 0)) this.logger.info(deleted, 'old records deleted');
    },
  };
}

/** Runs a deletion until it finds nothing more, or has done enough for one run; returns how many rows it deleted. */
async function inBatches(forget: (limit: number) => Promise<number>): Promise<number> {
  let total = 0;
  for (let batch = 0; batch < FORGET_BATCHES_MAX; batch++) {
    const deleted = await forget(FORGET_BATCH);
    total += deleted;
    if (deleted < FORGET_BATCH) break;
  }
  return total;
}
