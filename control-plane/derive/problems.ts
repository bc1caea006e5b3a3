import { type MeshObject, objectKey, type Position, type Problem } from '../source/objects.ts';

/** A problem of an object at a path inside it. */
export function problemAt(
  object: MeshObject,
  problem: Pick<Problem, 'path' | 'message' | 'severity' | 'effect'>,
): Problem {
  return { object: objectKey(object), position: object.positionOf(problem.path), ...problem };
}

/** `mesh.yaml:3:1`; `state` and the like where there is no text. */
export function formatPosition(position: Position): string {
  return position.line === 0 ? position.file : `${position.file}:${position.line}:${position.column}`;
}

/** `Service shop/cart (mesh.yaml:3:1)`: how a problem names the other object of a conflict. */
export function nameWithPlace(object: MeshObject): string {
  return `${objectKey(object)} (${formatPosition(object.position)})`;
}
