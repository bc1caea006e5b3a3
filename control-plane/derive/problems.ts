import { formatPosition, type MeshObject, objectKey, type Problem } from '../source/objects.ts';

/** A problem of an object at a path inside it. */
export function problemAt(
  object: MeshObject,
  problem: Pick<Problem, 'path' | 'message' | 'severity' | 'effect'>,
): Problem {
  return { object: objectKey(object), position: object.positionOf(problem.path), ...problem };
}

/** `Service shop/cart (mesh.yaml:3:1)`: how a problem names the other object of a conflict. */
export function nameWithPlace(object: MeshObject): string {
  return `${objectKey(object)} (${formatPosition(object.position)})`;
}
