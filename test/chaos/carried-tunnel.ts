import { z } from 'zod';

import type { Person } from '../cli/borectl.js';
import type { Api } from '../harness/api.js';
import { RunningProcess } from '../harness/running-process.js';
import { until } from '../harness/until.js';

/** Until a stock client that has ended is started again, as a service manager does. */
const RESTART_MS = 500;

const Opened = z.object({ id: z.string(), host: z.string(), port: z.number(), command: z.string() });

/** A tunnel that a client carries, whatever happens: borectl by itself, upstream's under somebody who starts it again. */
export class CarriedTunnel {
  private isOver = false;
  private client: RunningProcess | undefined;

  private constructor(
    readonly id: string,
    readonly host: string,
    readonly port: number,
    /** Who carries it, for the report. */
    readonly carrier: 'borectl' | 'bore',
  ) {}

  static async byBorectl(person: Person, api: Api, localPort: number, port: number): Promise<CarriedTunnel> {
    const client = await person.open(localPort, '--port', String(port), '--name', `borectl-${port}`);
    const { body } = await api.get(`/api/v1/tunnels?name=borectl-${port}`);
    const [row] = z.object({ items: z.array(z.object({ id: z.string() })) }).parse(body).items;
    if (!row) throw new Error('the tunnel that borectl has opened is not listed');
    const tunnel = new CarriedTunnel(row.id, client.host, client.port, 'borectl');
    tunnel.client = client;
    return tunnel;
  }

  static async byStock(bore: string, api: Api, localPort: number, port: number): Promise<CarriedTunnel> {
    const answer = await api.post('/api/v1/tunnels', { localPort, port, name: `bore-${port}` });
    const opened = Opened.parse(answer.body);
    const tunnel = new CarriedTunnel(opened.id, opened.host, opened.port, 'bore');
    const [, ...args] = opened.command.split(' ');
    void tunnel.keepRunning(bore, args);
    await until(() => tunnel.client?.output().includes('listening at') ?? false, 'the stock client listens');
    return tunnel;
  }

  async stop(): Promise<void> {
    this.isOver = true;
    await this.client?.kill9();
  }

  private async keepRunning(bore: string, args: readonly string[]): Promise<void> {
    while (!this.isOver) {
      const client = new RunningProcess(bore, args, { PATH: process.env['PATH'] });
      this.client = client;
      await new Promise((resolve) => client.child.once('close', resolve));
      await new Promise((resolve) => setTimeout(resolve, RESTART_MS));
    }
  }
}
