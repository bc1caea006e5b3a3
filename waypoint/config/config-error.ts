/** What makes a resource unusable: the field, and why. The store adds the resource's name. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'NOT_SUPPORTED';
}

/** Refuses a resource. @throws ConfigError always */
export function refuse(reason: string): never {
  throw new ConfigError(reason);
}
