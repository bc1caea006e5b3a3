import { CliError } from './cli-error.ts';
import { findStateFolder, type StateFolder, supervisorSocket } from './local/state-folder.ts';
import { bodyOf, callSocket, isCutOff, isForbidden, isNobodyThere, type SocketCall } from './unix-http.ts';

/**
 * Calls the supervisor of a running mesh.
 * @throws CliError 3 when the mesh does not run, 1 with its message when it refuses.
 */
export async function callSupervisor(
  stateDirectory: string,
  call: Omit<SocketCall, 'socketPath'>,
): Promise<unknown> {
  return bodyOf(await askSupervisor(getState(stateDirectory), call));
}

/**
 * The folder of a mesh that may run.
 * @throws CliError 3 when there is none.
 */
export function getState(stateDirectory: string): StateFolder {
  const state = findStateFolder(stateDirectory);
  if (state === undefined) throw notRunning(stateDirectory);
  return state;
}

/** The error of a mesh that does not run. */
function notRunning(stateDirectory: string): CliError {
  return new CliError(`no mesh runs with the state folder ${stateDirectory}: start it with tulle up`, {
    exitCode: 3,
  });
}

async function askSupervisor(
  state: StateFolder,
  call: Omit<SocketCall, 'socketPath'>,
): ReturnType<typeof callSocket> {
  try {
    return await callSocket({ ...call, socketPath: supervisorSocket(state) });
  } catch (cause) {
    if (isNobodyThere(cause)) throw notRunning(state.path);
    if (isCutOff(cause))
      throw new CliError(
        `the mesh of ${state.path} went down before it had answered, or has no descriptors left`,
        {
          exitCode: 3,
          cause,
        },
      );
    if (isForbidden(cause))
      throw new CliError(`the mesh of ${state.path} is not yours; try it with sudo`, { cause });
    throw cause;
  }
}
