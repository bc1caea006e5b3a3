import { type HttpRoute, type HttpUpgrade, jsonAnswer, textAnswer } from '../http-listener.ts';
import { HAND_OVER_PROTOCOL } from './hand-over-messages.ts';
import type { Offer } from './offer.ts';

/**
 * `POST /hand-over?pod=UID`: what a successor asks for. It says which of this process's descriptors are the pod's listening
 * sockets, and has it mind from then on that somebody else may read them, too.
 * `GET /hand-over`: what became of the connections that it met when it was the successor, and whether that is the last word.
 * @param offer undefined: the pod is not served here
 */
export function handOverRoutes(
  offer: (uid: string) => Promise<Offer | undefined>,
  met: () => object,
): readonly HttpRoute[] {
  const answer: HttpRoute['answer'] = async (query) => {
    const uid = query.get('pod');
    if (uid === null) return textAnswer(400, 'say which pod: ?pod=UID\n');
    const offered = await offer(uid);
    return offered === undefined ? textAnswer(204, '') : jsonAnswer(200, offered);
  };
  return [
    { method: 'POST', path: '/hand-over', answer },
    { method: 'GET', path: '/hand-over', answer: () => jsonAnswer(200, met()) },
  ];
}

/** `POST /hand-over/connections`: a successor waits there for the established connections. @param accept gets the socket */
export function handOverUpgrade(accept: HttpUpgrade['accept']): HttpUpgrade {
  return { path: '/hand-over/connections', protocol: HAND_OVER_PROTOCOL, accept };
}
