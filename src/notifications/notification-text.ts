import {
  type Notification,
  type NotificationDetails,
  NotificationKind,
  type NotificationView,
} from './notification.js';

/** What is said of a notification: one line, in plain text. */
interface Said {
  readonly severity: NotificationView['severity'];
  readonly text: string;
}

const SEVERITY: Record<NotificationKind, Said['severity']> = {
  'capacity.high': 'warning',
  'server.lost': 'critical',
  'breaker.open': 'warning',
  'tunnel.suspended': 'info',
  'user.suspended': 'info',
  'user.restored': 'info',
  test: 'info',
};

/** Sentences by kind; `over`: what it tells of has ended. */
const SENTENCES: Record<NotificationKind, (key: string, over: boolean, details: NotificationDetails) => string> = {
  'capacity.high': (_, over, { percent, open, total }) =>
    `${over ? 'Capacity is free again' : 'Capacity runs out'}: ${open} of ${total} tunnels are open (${percent} %).`,
  'server.lost': (key, over, details) =>
    over
      ? `bore-server ${key} (${details['location']}) is no longer lost: it is ${details['now']}.`
      : `bore-server ${key} (${details['location']}) is lost: its lease has ended, with ${details['openTunnels']} tunnels open.`,
  'breaker.open': (key, over, { backends }) =>
    over
      ? `Backends reach bore-server ${key} again: its circuit breakers are closed.`
      : `bore-server ${key} does not answer: its circuit breaker is open on ${backends} of the backends.`,
  'tunnel.suspended': (key, _, { reason, userId }) => `Tunnel ${key} of user ${userId} was suspended: ${reason}`,
  'user.suspended': (key, _, { reason, closedTunnels }) =>
    `User ${key} was suspended, which closed ${closedTunnels} tunnels: ${reason}`,
  'user.restored': (key) => `User ${key} is no longer suspended.`,
  test: () => 'This is a test of the notifications of bore-platform. Nothing has happened.',
};

/** Says what a notification tells. One of a later release is told by its name. */
export function sayNotification({ kind, key, state, occurrences, details }: Notification): Said {
  const known = NotificationKind.safeParse(kind);
  if (!known.success) return { severity: 'info', text: `${kind} ${key}: ${state}` };
  const sentence = SENTENCES[known.data](key, state === 'resolved', details);
  const often = occurrences > 1 ? ` It began ${occurrences} times.` : '';
  return { severity: SEVERITY[known.data], text: `${sentence}${often}` };
}
