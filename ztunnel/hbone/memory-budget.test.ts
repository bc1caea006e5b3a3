import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { createMemoryBudget, forgetWorkerMemory, type MemoryBudget } from './memory-budget.ts';

const BUDGET_MODULE = new URL('./memory-budget.ts', import.meta.url).href;

/** A worker that takes so many batches, gives one back, and crashes. */
async function crash(budget: MemoryBudget, worker: number, batches: number): Promise<void> {
  const program = `
    const { workerData } = require('node:worker_threads');
    import(${JSON.stringify(BUDGET_MODULE)}).then(({ shareMemoryBudget, countBatches }) => {
      shareMemoryBudget(workerData, ${worker});
      countBatches(${batches});
      countBatches(-1);
      throw new Error('it fell over');
    });`;
  const thread = new Worker(program, { eval: true, workerData: budget });
  const error = await new Promise((resolve) => thread.on('error', resolve));
  expect(error).toMatchObject({ message: 'it fell over' });
}

test('what a worker used that has crashed is free again, and what the others use is not', async () => {
  const budget = createMemoryBudget(1024 * 1024, 2);
  const used = (): number | undefined => new Int32Array(budget.used)[0];
  await crash(budget, 0, 5);
  await crash(budget, 1, 8);
  expect(used()).toBe(11);
  forgetWorkerMemory(budget, 1);
  forgetWorkerMemory(budget, 1);
  expect(used()).toBe(4);
  forgetWorkerMemory(budget, 0);
  expect(used()).toBe(0);
});
