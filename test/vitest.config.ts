import { availableParallelism } from 'node:os';
import { defineConfig, type ViteUserConfig } from 'vitest/config';

/**
 * Unit tests lie beside the code; scenarios (network namespaces, root) in test/scenario, two files at a time; what takes thousands of
 * connections, restarts in a row, or a minute, in test/load, one file at a time; the comparison with a stock Envoy (it is
 * fetched by pip), and h2spec (Go's tool chain builds it), in test/interop.
 */
const config: ViteUserConfig = defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          root: '.',
          include: ['**/*.test.ts'],
          exclude: ['node_modules/**', 'test/scenario/**', 'test/load/**', 'test/interop/**'],
          pool: 'forks',
          // Vitest leaves a processor free; many of these wait for a time to pass.
          maxWorkers: Math.max(2, availableParallelism()),
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: 'scenario',
          root: '.',
          include: ['test/scenario/**/*.test.ts'],
          pool: 'forks',
          // Each has a mesh of its own, and waits more than it computes.
          maxWorkers: 2,
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'load',
          root: '.',
          include: ['test/load/**/*.test.ts'],
          pool: 'forks',
          // What takes all of a machine is not to meet its like.
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'interop',
          root: '.',
          include: ['test/interop/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          testTimeout: 120_000,
          hookTimeout: 600_000,
        },
      },
    ],
  },
});

export default config;
