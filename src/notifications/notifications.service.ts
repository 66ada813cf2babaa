import { Injectable } from '@nestjs/common';

import { cutPage, type Page } from '../platform/http/page.js';
import type { ListNotificationsQuery, NotificationView, TestNotificationAnswer } from './notification.js';
import { NotificationCourier } from './notification-courier.js';
import { sayNotification } from './notification-text.js';
import { type ListedNotification, NotificationsRepository } from './notifications.repository.js';

/** What administrators are told, and what they see of it. */
@Injectable()
export class NotificationsService {
  constructor(
    private readonly notifications: NotificationsRepository,
    private readonly courier: NotificationCourier,
  ) {}

  /**
   * Looks at what is so, and writes down what to tell of it and to whom.
   * @returns the targets that something can be sent now
   */
  async look(): Promise<string[]> {
    const targets = this.courier.targets.map(({ id }) => id);
    await this.notifications.observe();
    await this.notifications.tell();
    await this.notifications.address(targets);
    return this.notifications.due(targets);
  }

  /** Has every target sent a message that says nothing. */
  async test(): Promise<TestNotificationAnswer> {
    return { id: await this.notifications.addTest(), targets: this.courier.targets.map(({ id }) => id) };
  }

  async list({ limit }: ListNotificationsQuery, before: string | undefined): Promise<Page<NotificationView>> {
    const rows = await this.notifications.list(before, limit);
    const { items, nextCursor } = cutPage(rows, limit, ({ sequence }) => sequence);
    return { items: items.map(viewNotification), nextCursor };
  }
}

function viewNotification(row: ListedNotification): NotificationView {
  const { id, kind, key, state, occurrences, at, deliveries } = row;
  return { id, kind, key, state, ...sayNotification(row), occurrences, at, deliveries };
}
