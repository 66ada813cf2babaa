import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Another host, made of a network namespace and a virtual cable to it. Its network can fail as real networks do: packets
 * vanish, and nobody is told.
 */
export class RemoteHost {
  private constructor(
    private readonly name: string,
    /** Name of our end of the cable; the kernel takes 15 characters. */
    private readonly link: string,
    readonly ourAddress: string,
  ) {}

  /** Why none can be made here, or `undefined`. */
  static async unavailable(): Promise<string | undefined> {
    if (process.getuid?.() !== 0) return 'network namespaces need root';
    try {
      await run('ip', ['-V']);
    } catch {
      return 'there is no ip (Debian package iproute2)';
    }
    const probe = `bore-probe-${process.pid}`;
    try {
      await run('ip', ['netns', 'add', probe]);
      await run('ip', ['netns', 'delete', probe]);
      return undefined;
    } catch (error) {
      return `this machine allows no network namespace: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  /** @param subnet third octet of 10.231.x.0/30, a suite's own */
  static async create(subnet: number): Promise<RemoteHost> {
    await deleteLinksLeftAt(subnet);
    const name = `bore-${process.pid}-${subnet}`;
    const host = new RemoteHost(name, `bore${process.pid % 100_000}x${subnet}`, `10.231.${subnet}.1`);
    await run('ip', ['netns', 'add', name]);
    await run('ip', ['link', 'add', host.link, 'type', 'veth', 'peer', 'name', 'far', 'netns', name]);
    await run('ip', ['address', 'add', `${host.ourAddress}/30`, 'dev', host.link]);
    await run('ip', ['link', 'set', host.link, 'up']);
    await host.inside(['ip', 'address', 'add', `10.231.${subnet}.2/30`, 'dev', 'far']);
    await host.inside(['ip', 'link', 'set', 'far', 'up']);
    await host.inside(['ip', 'link', 'set', 'lo', 'up']);
    return host;
  }

  /** The command line that runs a program there. */
  command(program: string, args: readonly string[]): [string, string[]] {
    return ['ip', ['netns', 'exec', this.name, program, ...args]];
  }

  /** From now on nothing that it sends arrives anywhere, and nobody is told. */
  async vanish(): Promise<void> {
    await this.inside(['ip', 'route', 'add', 'blackhole', `${this.ourAddress}/32`]);
  }

  /** Its programs must have ended. The cable goes with it. */
  async delete(): Promise<void> {
    await run('ip', ['link', 'delete', this.link]);
    await run('ip', ['netns', 'delete', this.name]);
  }

  private async inside(args: readonly string[]): Promise<void> {
    await run(...this.command(args[0] ?? '', args.slice(1)));
  }
}

/** A run that was killed leaves its cables, and a second one of the same address would take what is meant for ours. */
async function deleteLinksLeftAt(subnet: number): Promise<void> {
  const { stdout } = await run('ip', ['-o', 'link']);
  const links = [...stdout.matchAll(/ (bore\d+x(\d+))@/g)];
  for (const [, link = '', at] of links) if (Number(at) === subnet) await run('ip', ['link', 'delete', link]);
}
