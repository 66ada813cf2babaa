import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';

import { z } from 'zod';

import { RequestId } from '../../protocol/request-id.js';
import { currentRequest } from '../http/request-context.js';

/** What every line says that is logged while a job runs. */
interface RunningJob {
  /** The queue's own id of the run. */
  readonly jobId: string;
  readonly task: string;
  /** Of the request that put the job into the queue; of a job that time has put there, one of its own. */
  readonly requestId: string;
}

const storage = new AsyncLocalStorage<RunningJob>();

/** The part of a job's data that says which request it comes from. */
const JobOrigin = z.object({ requestId: RequestId });

/** The job that the running code belongs to; undefined in requests and at start. */
export function currentJob(): RunningJob | undefined {
  return storage.getStore();
}

/** The id by which everything that the running code does can be found again, in other processes too; a new one where it has none. */
export function currentRequestId(): string {
  return currentRequest()?.id ?? currentJob()?.requestId ?? randomUUID();
}

/** To be spread into the data of a job that is put into a queue: its run is logged under the same request. */
export function jobOrigin(): z.infer<typeof JobOrigin> {
  return { requestId: currentRequestId() };
}

/** Runs a job's work so that every line it logs says which job it is, and for which request. */
export function runAsJob<T>(
  job: { readonly id?: string | undefined; readonly name: string; readonly data: unknown },
  work: () => Promise<T>,
): Promise<T> {
  const origin = JobOrigin.safeParse(job.data);
  const requestId = origin.success ? origin.data.requestId : randomUUID();
  return storage.run({ jobId: job.id ?? '', task: job.name, requestId }, work);
}
