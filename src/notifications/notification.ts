import { z } from 'zod';

import { PageQuery } from '../platform/http/page.js';

/** What administrators are told of. The first three begin and end; the others happen. */
export const NotificationKind = z.enum([
  'capacity.high',
  'server.lost',
  'breaker.open',
  'tunnel.suspended',
  'user.suspended',
  'user.restored',
  'test',
]);
export type NotificationKind = z.infer<typeof NotificationKind>;

/** `occurred`: of what has no end. */
export const NotificationState = z.enum(['firing', 'resolved', 'occurred']);

/** Facts behind a notification, each short: names, numbers, and the reason that an administrator gave. */
export const NotificationDetails = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]));
export type NotificationDetails = z.infer<typeof NotificationDetails>;

/** A notification as the database has it. */
export const Notification = z.object({
  id: z.guid(),
  // not the enum: the database may be of a later release than this process
  kind: z.string(),
  key: z.string(),
  state: NotificationState,
  occurrences: z.int(),
  details: NotificationDetails,
  at: z.iso.datetime(),
});
export type Notification = z.infer<typeof Notification>;

/** How far a notification has come on its way to one target. */
export const DeliveryView = z.object({
  target: z.string().describe('`slack`, or `webhook-` and the beginning of the SHA-256 of its URL'),
  state: z.enum(['pending', 'sent', 'given_up']),
  attempts: z.int(),
  dueAt: z.iso.datetime().nullable().describe('While pending: not tried before'),
  finishedAt: z.iso.datetime().nullable(),
  failure: z.string().nullable().describe('Of the last attempt'),
});

/** A notification as administrators see it. */
export const NotificationView = z.object({
  id: z.guid().describe('Sent as `webhook-id`'),
  kind: z.string(),
  key: z.string().describe('What it is about: the id of a bore-server, tunnel or user'),
  state: NotificationState,
  severity: z.enum(['critical', 'warning', 'info']),
  text: z.string(),
  occurrences: z.int().describe('How often it began, of what this tells'),
  at: z.iso.datetime(),
  deliveries: z.array(DeliveryView),
});
export type NotificationView = z.infer<typeof NotificationView>;

export const ListNotificationsQuery = PageQuery;
export type ListNotificationsQuery = z.output<typeof ListNotificationsQuery>;

export const TestNotificationAnswer = z.object({
  id: z.guid(),
  targets: z.array(z.string()).describe('Where it is being sent; empty when none is set'),
});
export type TestNotificationAnswer = z.infer<typeof TestNotificationAnswer>;

/** Where a notification stands in the list: its number, a bigint of the database. */
export const NotificationKeyText = z.string().regex(/^\d{1,18}$/);
