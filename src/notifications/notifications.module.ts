import { BullModule } from '@nestjs/bullmq';
import { Module } from '@nestjs/common';

import { QueueModule } from '../platform/queue/queue.module.js';
import { AdminNotificationsController } from './admin-notifications.controller.js';
import { NotificationCourier } from './notification-courier.js';
import { NOTIFICATIONS_QUEUE, NotificationsProcessor } from './notifications.processor.js';
import { NotificationsRepository } from './notifications.repository.js';
import { NotificationsService } from './notifications.service.js';

@Module({
  imports: [QueueModule, BullModule.registerQueue({ name: NOTIFICATIONS_QUEUE })],
  controllers: [AdminNotificationsController],
  providers: [NotificationCourier, NotificationsProcessor, NotificationsRepository, NotificationsService],
  exports: [NotificationCourier],
})
export class NotificationsModule {}
