import { Global, Injectable, Module } from '@nestjs/common';

/** Where in its life this process is: it says no in `/health/ready` before it stops accepting. */
@Injectable()
export class Lifecycle {
  private stopping = false;

  get draining(): boolean {
    return this.stopping;
  }

  drain(): void {
    this.stopping = true;
  }
}

@Global()
@Module({ providers: [Lifecycle], exports: [Lifecycle] })
export class LifecycleModule {}
