import { Module } from '@nestjs/common';

import { UserDirectoryRepository } from './user-directory.repository.js';
import { UsersRepository } from './users.repository.js';

@Module({
  providers: [UserDirectoryRepository, UsersRepository],
  exports: [UserDirectoryRepository, UsersRepository],
})
export class UsersModule {}
