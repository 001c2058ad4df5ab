"""An API server in memory, for tests that stop the operator between any two calls.

It keeps the rules that our correctness rests on: resourceVersion and uid preconditions, generation, the
status subresource, finalizers and deletionTimestamp, owner references and their garbage collection,
namespaces, fields that may not change, strict schemas for our own kinds. It does not keep: defaulting,
validation of foreign kinds, CEL, field managers, foreground deletion, grace periods. Those are tested on the
real API server.
"""

import asyncio
import marshal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from coeval.kube.kinds import NAMESPACE
from coeval.kube.port import Conflict, Forbidden, Invalid, Kind, NotFound, Object

from tests.unit.fakeapi_rules import (
    IMMUTABLE,
    WITHOUT_STATUS,
    Ref,
    check_schema,
    content,
    dig,
    merge_patch,
    name_of,
    order,
    plain,
    without_status,
)

T = TypeVar("T")
Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Call:
    """One call of the operator's; `name` is the path for a subresource."""

    verb: str
    kind: Kind | None
    namespace: str | None
    name: str

    @property
    def mutates(self) -> bool:
        return self.verb not in {"get", "list", "logs"} and not self.verb.startswith("GET")

    def __str__(self) -> str:
        return " ".join(
            filter(None, [self.verb, self.kind.plural if self.kind else "", self.namespace, self.name])
        )


Hook = Callable[[Moment, Call], None]
Subresource = Callable[[str, str, Object | None], Any]


def _copied(obj: T) -> T:
    """A deep copy of plain JSON, several times as fast as copy.deepcopy: most of a crash test's time."""
    copied: T = marshal.loads(marshal.dumps(obj))  # type: ignore[arg-type]  # noqa: S302  (our own data)
    return copied


class FakeApi:
    """Implements `KubeApi`.

    `hook` is called before and after every call and may raise: before, nothing happened; after, it did and
    the caller does not know. `put`, `set_status`, `find`, `all` and `remove` are for the test itself (users
    and other controllers): they pass no hook. `allowed` refuses calls as RBAC would (rbac.py). `now` stamps
    creations and deletions.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        hook: Hook | None = None,
        subresource: Subresource | None = None,
        allowed: Callable[[Call], bool] | None = None,
        namespaces: Sequence[str] = ("coeval-system",),
    ) -> None:
        self.hook = hook
        self.on_subresource = subresource
        self.allowed = allowed
        self.pod_logs: dict[tuple[str, str, str], str] = {}
        self.calls: list[Call] = []
        self._now = now
        self._objects: dict[Ref, Object] = {}
        self._version = 0
        self._uids = 0
        for name in namespaces:
            self.put(NAMESPACE, {"metadata": {"name": name}})

    # The test's own hands.

    def put(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        """Create or replace an object with its status, whatever the rules say of updates."""
        typed: Object = {"apiVersion": kind.api_version, "kind": kind.kind}
        body = typed | plain(body)
        namespace = namespace or body["metadata"].get("namespace")
        if namespace and (NAMESPACE, "", namespace) not in self._objects:
            self.put(NAMESPACE, {"metadata": {"name": namespace}})
        ref = self._ref(kind, body["metadata"]["name"], namespace)
        check_schema(kind, body)
        old = self._objects.get(ref)
        if old is None:
            return self._insert(ref, body)
        kept = {k: old["metadata"][k] for k in ("uid", "creationTimestamp", "generation")}
        body["metadata"] = body["metadata"] | kept | ({"namespace": namespace} if kind.namespaced else {})
        return self._store(ref, body, old)

    def set_status(self, kind: Kind, name: str, namespace: str | None, status: Object) -> Object:
        """What another controller reports: its fields are merged into .status, None removes one."""
        ref = self._ref(kind, name, namespace)
        old = self._objects[ref]
        return self._store(ref, old | {"status": merge_patch(old.get("status", {}), plain(status))}, old)

    def find(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        """The object as stored, a copy."""
        return _copied(self._objects.get(self._ref(kind, name, namespace)))

    def all(self, kind: Kind | None = None) -> list[Object]:
        """Everything, or everything of a kind, copies."""
        return [_copied(o) for (k, _, _), o in sorted(self._objects.items(), key=order) if kind in (None, k)]

    def remove(self, kind: Kind, name: str, namespace: str | None = None) -> None:
        """A user's `kubectl delete`."""
        self._delete(self._ref(kind, name, namespace), None)

    # KubeApi.

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        return await self._call(Call("get", kind, namespace, name), lambda: self.find(kind, name, namespace))

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Object]:
        wanted = (labels or {}).items()
        return await self._call(
            Call("list", kind, namespace, ""),
            lambda: [
                found
                for found in self.all(kind)
                if namespace in (None, found["metadata"].get("namespace"))
                and wanted <= found["metadata"].get("labels", {}).items()
            ],
        )

    async def create(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        def act() -> Object:
            ref, sent = self._incoming(kind, body, namespace)
            if ref in self._objects:
                raise Conflict(409, "AlreadyExists", f'{kind.plural} "{ref[2]}" already exists')
            return self._insert(ref, without_status(kind, sent))

        return await self._call(Call("create", kind, namespace, name_of(body)), act)

    async def patch(self, kind: Kind, name: str, body: Object, namespace: str | None = None) -> Object:
        def act() -> Object:
            ref = self._ref(kind, name, namespace)
            old = self._existing(ref)
            sent = without_status(kind, plain(body))
            self._precondition(ref, old, sent.get("metadata", {}))
            return self._update(ref, merge_patch(old, sent), old)

        return await self._call(Call("patch", kind, namespace, name), act)

    async def replace_status(self, kind: Kind, body: Object, namespace: str | None = None) -> Object:
        def act() -> Object:
            ref, sent = self._incoming(kind, body, namespace)
            old = self._existing(ref)
            if kind in WITHOUT_STATUS:
                raise NotFound(404, "NotFound", f"{kind.plural} have no status subresource")
            if "resourceVersion" not in sent["metadata"]:
                raise Invalid(422, "Invalid", "metadata.resourceVersion: must be specified for an update")
            self._precondition(ref, old, sent["metadata"])
            return self._store(ref, old | {"status": sent.get("status", {})}, old)

        return await self._call(Call("replace_status", kind, namespace, name_of(body)), act)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        propagation: str = "Background",
    ) -> bool:
        if propagation != "Background":
            raise NotImplementedError(propagation)
        ref = self._ref(kind, name, namespace)
        return await self._call(Call("delete", kind, namespace, name), lambda: self._delete(ref, uid))

    async def logs(self, pod: str, namespace: str, *, container: str, tail_lines: int) -> str:
        def act() -> str:
            text = self.pod_logs.get((namespace, pod, container))
            if text is None:
                raise NotFound(404, "NotFound", f"no log of {namespace}/{pod} {container}")
            return "".join(text.splitlines(keepends=True)[-tail_lines:])

        return await self._call(Call("logs", None, namespace, pod), act)

    async def subresource(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109
    ) -> Any:
        def act() -> Any:
            if self.on_subresource is None:
                raise NotFound(404, "NotFound", path)
            return self.on_subresource(method, path, None if body is None else plain(body))

        return await self._call(Call(f"{method} subresource", None, None, path), act)

    async def create_token(
        self, service_account: str, namespace: str, *, audiences: Sequence[str], seconds: int
    ) -> str:
        return await self._call(
            Call("create_token", None, namespace, service_account), lambda: f"token for {','.join(audiences)}"
        )

    # Inside.

    async def _call(self, call: Call, act: Callable[[], T]) -> T:
        await asyncio.sleep(0)  # a call is a moment where others run
        if self.hook is not None:
            self.hook("before", call)
        self.calls.append(call)
        if self.allowed is not None and not self.allowed(call):
            raise Forbidden(403, "Forbidden", f"our roles do not allow: {call}")
        answer = act()
        if self.hook is not None:
            self.hook("after", call)
        return answer

    @staticmethod
    def _ref(kind: Kind, name: str, namespace: str | None) -> Ref:
        if kind.namespaced and not namespace:
            raise Invalid(400, "BadRequest", f"{kind.plural} {name!r}: no namespace given")
        return kind, (namespace or "") if kind.namespaced else "", name

    def _incoming(self, kind: Kind, body: Object, namespace: str | None) -> tuple[Ref, Object]:
        """The body as the server reads it; namespace from the argument or the body, which must agree."""
        sent = plain(body)
        if (sent.get("apiVersion"), sent.get("kind")) != (kind.api_version, kind.kind):
            raise Invalid(
                400, "BadRequest", f"{sent.get('apiVersion')} {sent.get('kind')} sent to {kind.plural}"
            )
        own = sent["metadata"].get("namespace")
        if own and namespace and own != namespace:
            raise Invalid(400, "BadRequest", f"namespace {own} sent to namespace {namespace}")
        check_schema(kind, sent)
        return self._ref(kind, name_of(sent), namespace or own), sent

    def _existing(self, ref: Ref) -> Object:
        if ref not in self._objects:
            raise NotFound(404, "NotFound", f'{ref[0].plural} "{ref[2]}" not found')
        return self._objects[ref]

    @staticmethod
    def _precondition(ref: Ref, old: Object, sent: Object) -> None:
        for field in ("uid", "resourceVersion"):
            if sent.get(field) not in (None, old["metadata"][field]):
                raise Conflict(409, "Conflict", f'{ref[0].plural} "{ref[2]}": {field} is another')

    def _insert(self, ref: Ref, body: Object) -> Object:
        kind, namespace, name = ref
        if kind.namespaced:
            home = self._existing((NAMESPACE, "", namespace))
            if "deletionTimestamp" in home["metadata"]:
                raise Forbidden(403, "Forbidden", f"namespace {namespace} is being terminated")
        self._uids += 1
        given = {
            k: v for k, v in body["metadata"].items() if k not in ("resourceVersion", "deletionTimestamp")
        }
        meta = given | {
            "name": name,
            "uid": f"00000000-0000-4000-8000-{self._uids:012}",
            "creationTimestamp": self._time(),
            "generation": 1,
        }
        return self._store(
            ref, body | {"metadata": meta | ({"namespace": namespace} if namespace else {})}, None
        )

    def _update(self, ref: Ref, new: Object, old: Object) -> Object:
        """A write to the object itself: what the server owns stays, what may not change is refused."""
        for path in IMMUTABLE.get(ref[0], ()):
            if dig(new, path) != dig(old, path):
                raise Invalid(
                    422, "Invalid", f'{ref[0].plural} "{ref[2]}": {".".join(path)}: field is immutable'
                )
        was, meta = old["metadata"], new["metadata"]
        if "deletionTimestamp" in was and not set(meta.get("finalizers", ())) <= set(
            was.get("finalizers", ())
        ):
            raise Invalid(
                422, "Invalid", f'{ref[0].plural} "{ref[2]}": no new finalizer while it is being deleted'
            )
        owned = (
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "name",
            "namespace",
        )
        new["metadata"] = meta | {k: was[k] for k in owned if k in was}
        if content(new) != content(old):
            new["metadata"]["generation"] += 1
        return self._store(ref, new, old)

    def _store(self, ref: Ref, new: Object, old: Object | None) -> Object:
        check_schema(ref[0], new)
        if old is None or new != old:
            self._version += 1
            new = _copied(new)
            new["metadata"]["resourceVersion"] = str(self._version)
            self._objects[ref] = new
            self._settle()
        return _copied(new)

    def _delete(self, ref: Ref, uid: str | None) -> bool:
        old = self._objects.get(ref)
        if old is None:
            return False
        self._precondition(ref, old, {"uid": uid})
        if "deletionTimestamp" not in old["metadata"]:
            meta = old["metadata"] | {
                "deletionTimestamp": self._time(), "generation": old["metadata"]["generation"] + 1,
            }  # fmt: skip
            self._store(ref, old | {"metadata": meta}, old)
        return True

    def _settle(self) -> None:
        """Remove what is deleted and not held, and what that leaves without owner or namespace."""
        while True:
            gone = [ref for ref, obj in self._objects.items() if self._is_gone(ref, obj)]
            for ref in gone:
                del self._objects[ref]
            orphans = [ref for ref, obj in self._objects.items() if self._is_orphan(ref, obj)]
            for ref in orphans:
                meta = self._objects[ref]["metadata"]
                self._version += 1
                meta |= {"deletionTimestamp": self._time(), "resourceVersion": str(self._version)}
            if not gone and not orphans:
                return

    def _is_gone(self, ref: Ref, obj: Object) -> bool:
        if "deletionTimestamp" not in obj["metadata"] or obj["metadata"].get("finalizers"):
            return False
        return ref[0] != NAMESPACE or not any(namespace == ref[2] for _, namespace, _ in self._objects)

    def _is_orphan(self, ref: Ref, obj: Object) -> bool:
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            return False
        home = self._objects.get((NAMESPACE, "", ref[1]), {"metadata": {}})
        if "deletionTimestamp" in home["metadata"]:
            return True
        owners = meta.get("ownerReferences", [])
        return bool(owners) and not any(self._owner_lives(owner, ref[1]) for owner in owners)

    def _owner_lives(self, owner: Object, namespace: str) -> bool:
        """An owner is looked for in the dependent's namespace and cluster-wide, nowhere else."""
        return any(
            obj["metadata"]["uid"] == owner["uid"] and name == owner["name"] and kind.kind == owner["kind"]
            for (kind, home, name), obj in self._objects.items()
            if home in ("", namespace)
        )

    def _time(self) -> str:
        return self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
