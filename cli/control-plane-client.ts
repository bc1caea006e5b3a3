import { CliError } from './cli-error.ts';
import { controlPlaneSocket } from './local/state-folder.ts';
import { getState } from './supervisor-client.ts';
import { bodyOf, callSocket, isCutOff, isForbidden, isNobodyThere, type SocketCall } from './unix-http.ts';

/**
 * Calls the control plane on its socket, which only its owner may open.
 * @throws CliError 3 when it does not run, 1 with its message when it refuses.
 */
export async function callControlPlane(
  stateDirectory: string,
  call: Omit<SocketCall, 'socketPath'>,
): Promise<unknown> {
  const state = getState(stateDirectory);
  try {
    return bodyOf(await callSocket({ ...call, socketPath: controlPlaneSocket(state) }));
  } catch (cause) {
    if (isNobodyThere(cause)) {
      const message = `the control plane of ${state.path} does not run: start it with tulle up, or tulle start control-plane`;
      throw new CliError(message, { exitCode: 3, cause });
    }
    if (isCutOff(cause)) {
      const message = `the control plane of ${state.path} ended before it had answered; tulle status says how it is`;
      throw new CliError(message, { exitCode: 3, cause });
    }
    if (isForbidden(cause))
      throw new CliError(`the mesh of ${state.path} is not yours; try it with sudo`, { cause });
    throw cause;
  }
}
