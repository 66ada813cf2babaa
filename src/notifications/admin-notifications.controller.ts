import { Controller, Get, Post, Query } from '@nestjs/common';
import { ApiTags } from '@nestjs/swagger';

import { Answers } from '../platform/http/answers.decorator.js';
import { keyOfCursor, type Page, pageOf } from '../platform/http/page.js';
import { AdminOnly } from '../platform/http/route-metadata.js';
import {
  ListNotificationsQuery,
  NotificationKeyText,
  NotificationView,
  TestNotificationAnswer,
} from './notification.js';
import { NotificationsService } from './notifications.service.js';

@ApiTags('admin')
@Controller('admin/notifications')
export class AdminNotificationsController {
  constructor(private readonly notifications: NotificationsService) {}

  @Get()
  @AdminOnly('admin:read')
  @Answers(200, pageOf(NotificationView))
  list(@Query({ schema: ListNotificationsQuery }) query: ListNotificationsQuery): Promise<Page<NotificationView>> {
    const before = query.cursor === undefined ? undefined : keyOfCursor(query.cursor, NotificationKeyText);
    return this.notifications.list(query, before);
  }

  @Post('test')
  @AdminOnly('admin:write')
  @Answers(202, TestNotificationAnswer)
  test(): Promise<TestNotificationAnswer> {
    return this.notifications.test();
  }
}
