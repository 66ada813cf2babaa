import type { BoreServerClient } from './bore-server-client.js';

/** Orders under way at once at one server: it answers in milliseconds, and has other things to do. */
const ORDERS_AT_ONCE = 20;

/** What a server must end, and why. */
export interface CloseOrder {
  readonly id: string;
  readonly reason: string;
  readonly serverId: string;
  readonly adminUrl: string | null;
}

/**
 * Tells each server which tunnels to end, in groups; servers do not wait for each other. One that cannot be told now hears of all of
 * them, those of later groups too, in the answer to its next heartbeat.
 */
export async function orderClosed(boreServers: BoreServerClient, orders: readonly CloseOrder[]): Promise<void> {
  const lanes = new Map<string, CloseOrder[]>();
  for (const order of orders) {
    const lane = lanes.get(order.serverId);
    if (lane) lane.push(order);
    else lanes.set(order.serverId, [order]);
  }
  await Promise.all([...lanes.values()].map((lane) => orderOne(boreServers, lane)));
}

async function orderOne(boreServers: BoreServerClient, lane: readonly CloseOrder[]): Promise<void> {
  for (let i = 0; i < lane.length; i += ORDERS_AT_ONCE) {
    const told = await Promise.all(
      lane
        .slice(i, i + ORDERS_AT_ONCE)
        .map(({ id, reason, serverId, adminUrl }) => boreServers.closeTunnel({ id: serverId, adminUrl }, id, reason)),
    );
    if (told.includes(false)) return;
  }
}
