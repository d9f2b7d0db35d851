"""Manifests with one mistake each, which `load_job` and the API server must both refuse."""

from typing import Any

from tests.unit.api.manifest import REMOVE

LABEL_KEY = (
    "must be a name of at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends; a DNS name "
    "and '/' may stand before it"
)
OWN_FOLDER = (
    "must not be, lie in or lie above one of the operator's own folders: /cache, /dev/shm, /etc/distill, /mnt/claims, "
    "/state, /tmp"
)
VOLUME = {"name": "a", "mountPath": "/a", "emptyDir": "1Gi"}


def teacher(**pods: Any) -> dict[str, Any]:
    """`spec.pods` with these fields for the teacher's."""
    return {"teacher": pods}


def nodes(**requirement: Any) -> dict[str, Any]:
    """`spec.pods` with one requirement of the teacher's nodes."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}
    return teacher(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}})


def away_from(**requirement: Any) -> dict[str, Any]:
    """`spec.pods` with one requirement of pods that the teacher's keep away from."""
    term = {"topologyKey": "zone", "labelSelector": {"matchExpressions": [requirement]}}
    return teacher(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}})


_DURING = "requiredDuringSchedulingIgnoredDuringExecution"
NODE = f"spec.pods.teacher.affinity.nodeAffinity.{_DURING}.nodeSelectorTerms[0].matchExpressions[0]"
NODE_VALUES = "In and NotIn need values, Exists and DoesNotExist have none, Gt and Lt have one"
PODS = f"spec.pods.teacher.affinity.podAntiAffinity.{_DURING}[0].labelSelector.matchExpressions[0]"
POD_VALUES = "In and NotIn need values, Exists and DoesNotExist have none"
TASK = {"kind": "classification", "name": "t", "data": "file://t.jsonl"}
WEIGHT = "spec.data.sources[0].weight: must be greater than 0, got 0"
TARGETS = "spec.data.targets: must be 'allAssistantTurns' or 'lastAssistantTurn', got \"last\""

ONE_MISTAKE: list[tuple[str, Any, str]] = [
    ("spec.training.globalBatch", 0, "spec.training.globalBatch: must be at least 1, got 0"),
    ("spec.teacher.gpus", 65, "spec.teacher.gpus: must be at most 64, got 65"),
    ("spec.training.optimizer.learningRate", 0, "spec.training.optimizer.learningRate: must be greater than 0, got 0"),
    ("spec.training.optimizer.betas", [0.9, 1], "spec.training.optimizer.betas[1]: must be less than 1, got 1"),
    ("spec.training.optimizer.betas", [0.9], "spec.training.optimizer.betas[1]: is required"),
    ("spec.training.optimizer.betas", 3, "spec.training.optimizer.betas: must be a list, got 3"),
    ("spec.teacher.gpus", "2", 'spec.teacher.gpus: must be a whole number, got "2"'),
    ("spec.teacher.gpus", 1.5, "spec.teacher.gpus: must be a whole number, got 1.5"),
    ("spec.training.epochs", "many", 'spec.training.epochs: must be a number, got "many"'),
    ("spec.training.packing", "maybe", 'spec.training.packing: must be true or false, got "maybe"'),
    ("spec.training.packing", 1, "spec.training.packing: must be true or false, got 1"),
    ("spec.storage.secretName", True, "spec.storage.secretName: must be text, got true; put it in quotes"),
    ("spec.storage.region", "", "spec.storage.region: must have at least 1 character, got 0"),
    (
        "spec.storage.uri",
        "hf://a",
        'spec.storage.uri: must be a URI that begins with file:// or s3://, without spaces, got "hf://a"',
    ),
    (
        "spec.teacher.model",
        "ftp://host/model",
        "spec.teacher.model: must be a URI that begins with file://, s3://, hf:// or pvc://, without spaces, "
        'got "ftp://host/model"',
    ),
    (
        "spec.storage.endpoint",
        "minio:9000",
        'spec.storage.endpoint: must begin with http:// or https:// and have no spaces, got "minio:9000"',
    ),
    (
        "spec.signal.mode",
        "hybird",
        "spec.signal.mode: must be 'hybrid', 'streaming' or 'offline', got \"hybird\"",
    ),
    ("spec.signal.kind", "logits", "spec.signal.kind: must be 'hidden', 'topk', 'sampled' or 'auto', got \"logits\""),
    ("spec.signal.k", 0, "spec.signal.k: must be at least 1, got 0"),
    ("spec.signal.samples", 4097, "spec.signal.samples: must be at most 4096, got 4097"),
    ("spec.training.zeroStage", 4, "spec.training.zeroStage: must be 0, 1, 2 or 3, got 4"),
    ("spec.teacher", "hf://a/b", 'spec.teacher: must be a mapping, got "hf://a/b"'),
    ("spec.data", [1], "spec.data: must be a mapping, got a list"),
    ("spec.data.train", 5, "spec.data.train: must be text or a list, got 5"),
    ("spec.data.train", {"uri": "x"}, "spec.data.train: must be text or a list, got a mapping"),
    ("spec.data.train", [], "spec.data.train: must have at least 1 entry, got 0"),
    ("spec.data.evaluation", ["s3://a/b", 3], "spec.data.evaluation[1]: must be text, got 3; put it in quotes"),
    (
        "spec.data.train",
        ["s3://a/b", "/c/d.jsonl"],
        "spec.data.train[1]: must be a URI that begins with file://, s3://, hf:// or pvc://, without spaces, "
        'got "/c/d.jsonl"',
    ),
    (
        "spec.data.train",
        "./train.jsonl",
        "spec.data.train: must be a URI that begins with file://, s3://, hf:// or pvc://, without spaces, "
        'got "./train.jsonl"',
    ),
    ("spec.data.train", REMOVE, "spec.data: give exactly one of train and sources"),
    ("spec.data.sources", [{"uri": "s3://a/b"}], "spec.data: give exactly one of train and sources"),
    ("spec.data", {"sources": [{"uri": "s3://a/b", "weight": 0}]}, WEIGHT),
    ("spec.data", {"sources": []}, "spec.data.sources: must have at least 1 entry, got 0"),
    ("spec.data.targets", "last", TARGETS),
    ("spec.data.teacherPrompt", "", "spec.data.teacherPrompt: must have at least 1 character, got 0"),
    ("spec.teacher.model", REMOVE, "spec.teacher.model: is required"),
    ("spec.teacher.model", None, "spec.teacher.model: is required"),
    ("spec.storage", REMOVE, "spec.storage: is required"),
    ("spec", REMOVE, "spec: is required"),
    ("kind", "Job", "kind: must be 'DistillJob', got \"Job\""),
    ("apiVersion", "v1", "apiVersion: must be 'distill-operator.io/v1alpha1', got \"v1\""),
    (
        "metadata.name",
        "Qwen3.4B",
        "metadata.name: must have only lower-case letters, digits and '-', begin with a letter and end with a letter "
        'or digit, got "Qwen3.4B"',
    ),
    ("metadata.name", "a" * 41, f'metadata.name: must have at most 40 characters, got 41: "{"a" * 41}"'),
    ("metadata.labels", {"team": 7}, "metadata.labels.team: must be text, got 7; put it in quotes"),
    ("spec.output.select", "best", "spec: output.select is best, which needs data.evaluation"),
    (
        "spec.evaluation.harness",
        {"tasks": [{"task": "arc_easy"}, {"task": "arc_easy"}]},
        "spec.evaluation.harness: tasks names a task twice",
    ),
    (
        "spec.training",
        {"deepspeed": {"train_batch_size": 8}},
        "spec.training.deepspeed.train_batch_size: is not a known field",
    ),
    (
        "spec.training",
        {"deepspeed": {"zero_optimization": {"stage": 3}}},
        "spec.training.deepspeed.zero_optimization.stage: is not a known field",
    ),
    (
        "spec.training",
        {"optimizer": {"kind": "torch", "torch": {"name": "Adafactor"}}},
        "spec.training.optimizer.torch.name: must be 'Adadelta', 'Adam', 'AdamW', 'Adamax', 'NAdam', 'RAdam', "
        "'RMSprop' or 'SGD', got \"Adafactor\"",
    ),
    ("spec.evaluation.samples", {"count": 3}, "spec: evaluation.samples needs data.evaluation"),
    ("spec.trainng", {}, "spec.trainng: is not a known field; did you mean training?"),
    ("spec.training.globalBtach", 3, "spec.training.globalBtach: is not a known field; did you mean globalBatch?"),
    ("spec.training.global_batch", 3, "spec.training.global_batch: is not a known field; did you mean globalBatch?"),
    ("spec.training.kubernetes", 3, "spec.training.kubernetes: is not a known field"),
    ("spec.training.constructor", None, "spec.training.constructor: is not a known field"),
    ("sepc", {}, "sepc: is not a known field; did you mean spec?"),
    ("spec.evaluation.tasks", {"kind": "x"}, "spec.evaluation.tasks: must be a list, got a mapping"),
    ("spec.evaluation.tasks", ["banking"], 'spec.evaluation.tasks[0]: must be a mapping, got "banking"'),
    ("spec.evaluation.tasks", [TASK, {}], "spec.evaluation.tasks[1].kind: is required"),
    (
        "spec.evaluation.tasks",
        [{"kind": "summarise"}],
        "spec.evaluation.tasks[0].kind: must be 'classification' or 'questionAnswering', got \"summarise\"",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "labels": ["a"]}],
        "spec.evaluation.tasks[0].labels: must have at least 2 entries, got 1: a list",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "labels": [True, "no"]}],
        "spec.evaluation.tasks[0].labels[0]: must be text, got true; put it in quotes",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "label": "x"}],
        "spec.evaluation.tasks[0].label: is not a known field; did you mean labels?",
    ),
    (
        "spec.evaluation.tasks",
        [{**TASK, "classification": 1}],
        "spec.evaluation.tasks[0].classification: is not a known field",
    ),
    (
        "spec.evaluation.harness",
        {"tasks": [{"task": "arc easy"}]},
        "spec.evaluation.harness.tasks[0].task: must have only letters, digits, '_', '.', ':', '+' and '-', and begin "
        'with a letter or digit, got "arc easy"',
    ),
    ("spec.pods", teacher(cpu=True), "spec.pods.teacher.cpu: must be text, got true; put it in quotes"),
    ("spec.pods", teacher(cpu=0.5), "spec.pods.teacher.cpu: must be text, got 0.5; put it in quotes"),
    (
        "spec.pods",
        teacher(cpu=-1),
        'spec.pods.teacher.cpu: must be a quantity such as 500m, 8 or 64Gi, got "-1"',
    ),
    (
        "spec.pods",
        teacher(memory="64 GB"),
        'spec.pods.teacher.memory: must be a quantity such as 500m, 8 or 64Gi, got "64 GB"',
    ),
    (
        "spec.pods",
        teacher(nodeSelector={"gpu type": "h100"}),
        f'spec.pods.teacher.nodeSelector: a key {LABEL_KEY}, got "gpu type"',
    ),
    (
        "spec.pods",
        teacher(nodeSelector={"a" * 318: "b"}),
        f'spec.pods.teacher.nodeSelector: a key must have at most 317 characters, got 318: "{"a" * 79}…',
    ),
    (
        "spec.pods",
        teacher(nodeSelector={"gpu": "h 100"}),
        "spec.pods.teacher.nodeSelector.gpu: must have only letters, digits, '-', '_' and '.', with a letter or digit "
        'at both ends, or be empty, got "h 100"',
    ),
    (
        "spec.pods",
        teacher(labels={"team": 7}),
        "spec.pods.teacher.labels.team: must be text, got 7; put it in quotes",
    ),
    (
        "spec.pods",
        teacher(serviceAccount="Team_A"),
        "spec.pods.teacher.serviceAccount: must have only lower-case letters, digits, '-' and '.', with a letter or "
        'digit at both ends, got "Team_A"',
    ),
    (
        "spec.pods",
        teacher(environment=[{"name": "1A", "value": "b"}]),
        "spec.pods.teacher.environment[0].name: must have only letters, digits and '_', and not begin with a digit, "
        'got "1A"',
    ),
    (
        "spec.pods",
        teacher(environment=[{"name": "A", "secret": {"name": "s", "key": "a/b"}}]),
        "spec.pods.teacher.environment[0].secret.key: must have only letters, digits, '-', '_' and '.', got \"a/b\"",
    ),
    (
        "spec.pods",
        teacher(volumes=[{"name": "A", "mountPath": "/a", "emptyDir": "1Gi"}]),
        "spec.pods.teacher.volumes[0].name: must have only lower-case letters, digits and '-', with a letter or digit "
        'at both ends, got "A"',
    ),
    (
        "spec.pods",
        teacher(volumes=[{"name": "a", "mountPath": "/a/../b", "emptyDir": "1Gi"}]),
        "spec.pods.teacher.volumes[0].mountPath: must be a path from the root without ':', '.' and '..', and without "
        "'/' at its end, got \"/a/../b\"",
    ),
    (
        "spec.pods",
        teacher(volumes=[{"name": "a", "mountPath": "/a", "subPath": "/b", "claim": "c"}]),
        "spec.pods.teacher.volumes[0].subPath: must be a path that doesn't begin or end with '/', without '.' and "
        "'..', got \"/b\"",
    ),
    (
        "spec.pods",
        teacher(affinity={"nodeAfinity": {}}),
        "spec.pods.teacher.affinity.nodeAfinity: is not a known field; did you mean nodeAffinity?",
    ),
    ("spec.pods", {"evaluator": {}}, "spec.pods.evaluator: is not a known field; did you mean evaluate?"),
    ("spec.policy", {"backoffLimit": -1}, "spec.policy.backoffLimit: must be at least 0, got -1"),
    ("spec.policy", {"stallTimeoutSeconds": 1}, "spec.policy.stallTimeoutSeconds: must be at least 10, got 1"),
    (
        "spec.student",
        {"initialise": {"fromTeacher": {"layers": [0, 1, 1]}}},
        "spec.student.initialise.fromTeacher: layers must rise and name each layer once",
    ),
    ("spec.evaluation.tasks", [TASK, TASK], "spec.evaluation: two tasks have the same name"),
    (
        "spec.pods",
        teacher(environment=[{"name": "A", "value": "b"}, {"name": "A", "value": "c"}]),
        "spec.pods.teacher: two environment variables have the same name",
    ),
    (
        "spec.pods",
        teacher(volumes=[{**VOLUME, "mountPath": "/a"}, {**VOLUME, "mountPath": "/b"}]),
        "spec.pods.teacher: two volumes have the same name",
    ),
    (
        "spec.pods",
        teacher(topologySpread=[{"topologyKey": "zone"}, {"topologyKey": "zone", "maxSkew": 2}]),
        "spec.pods.teacher: two entries of topologySpread have the same topologyKey and whenUnsatisfiable",
    ),
]
"""Mistakes in one field: where, what, and the sentence of `load_job`."""


AGAINST_A_RULE: list[tuple[str, Any, str]] = [
    (
        "metadata.name",
        "1b",
        "metadata.name: must have only lower-case letters, digits and '-', begin with a letter and end with a letter "
        "or digit",
    ),
    ("metadata.name", "a" * 41, "metadata.name: must have at most 40 characters"),
    ("spec.student.model", REMOVE, "spec.student: give exactly one of model and initialise"),
    (
        "spec.student",
        {"initialise": {"fromTeacher": {"every": 2, "byInfluence": {"keep": 4}, "neurons": {"keep": 4}}}},
        "spec.student.initialise.fromTeacher: give exactly one of layers, every and byInfluence "
        "(or none of them beside neurons)",
    ),
    (
        "spec.student.initialise",
        {"fromTeacher": {"every": 3}},
        "spec.student: give exactly one of model and initialise",
    ),
    (
        "spec.student",
        {"initialise": {"fromTeacher": {"every": 3}, "fromConfig": {"config": "file://a"}}},
        "spec.student.initialise: give exactly one of fromTeacher and fromConfig",
    ),
    (
        "spec.student",
        {"initialise": {}},
        "spec.student.initialise: give exactly one of fromTeacher and fromConfig",
    ),
    (
        "spec.student",
        {"initialise": {"fromTeacher": {}}},
        "spec.student.initialise.fromTeacher: give exactly one of layers, every and byInfluence "
        "(or none of them beside neurons)",
    ),
    (
        "spec.student",
        {"initialise": {"fromTeacher": {"layers": [0, 2, 1]}}},
        "spec.student.initialise.fromTeacher: layers must rise and name each layer once",
    ),
    (
        "spec.student",
        {"model": "hf://a/b", "adapter": {"rank": 4}, "freeze": ["embeddings"]},
        "spec.student: with adapter all of the model's own weights are frozen: leave freeze out",
    ),
    (
        "spec.student.adapter",
        {"dropout": 0.05},
        "spec.student.adapter: dropout must be 0: with dropout the result would depend on how the work is divided "
        "among workers and micro-batches",
    ),
    (
        "spec.objective",
        {"distillationWeight": 0},
        "spec.objective: distillationWeight and crossEntropyWeight are both 0: nothing would be learned",
    ),
    *(
        (
            "spec.signal",
            {"kind": kind, "dtype": dtype},
            "spec.signal: dtype bfloat16 is for kind hidden, float16 for topk and sampled: leave it out",
        )
        for kind, dtype in (
            ("hidden", "float16"),
            ("topk", "bfloat16"),
            ("sampled", "bfloat16"),
            ("auto", "bfloat16"),
            ("auto", "float16"),
        )
    ),
    *(
        (
            "spec.training",
            {"optimizer": {"kind": "torch", "torch": {"name": name, "arguments": {argument: value}}}},
            f"spec.training.optimizer.torch: {argument} is an argument of {names} only",
        )
        for name, argument, value, names in (
            ("SGD", "betas", [0.9, 0.99], "Adam, AdamW, Adamax, NAdam and RAdam"),
            ("SGD", "eps", 1e-8, "Adadelta, Adam, AdamW, Adamax, NAdam, RAdam and RMSprop"),
            ("SGD", "amsgrad", True, "Adam and AdamW"),
            ("Adam", "momentum", 0.9, "RMSprop and SGD"),
            ("Adam", "dampening", 0.5, "SGD"),
            ("Adam", "nesterov", True, "SGD"),
            ("Adam", "alpha", 0.9, "RMSprop"),
            ("Adam", "centered", True, "RMSprop"),
            ("Adam", "rho", 0.9, "Adadelta"),
            ("Adam", "momentum_decay", 0.004, "NAdam"),
            ("SGD", "decoupled_weight_decay", True, "Adam, NAdam and RAdam"),
        )
    ),
    (
        "spec.training",
        {"optimizer": {"torch": {"name": "Adam"}}},
        "spec.training.optimizer: torch is given exactly when kind is torch",
    ),
    (
        "spec.training",
        {"optimizer": {"kind": "torch"}},
        "spec.training.optimizer: torch is given exactly when kind is torch",
    ),
    (
        "spec.training",
        {"deepspeed": {"zero_optimization": {"offload_param": {}}}},
        "spec.training: offload_param needs zeroStage 3",
    ),
    (
        "spec.training",
        {"zeroStage": 0, "deepspeed": {"zero_optimization": {"offload_optimizer": {}}}},
        "spec.training: offload_optimizer needs zeroStage 1 or more",
    ),
    ("spec.training", {"steps": 3, "epochs": 1}, "spec.training: give at most one of steps and epochs"),
    (
        "spec.training",
        {"precision": "bfloat16", "zeroStage": 0},
        "spec: training.precision bfloat16 needs training.zeroStage 1 or more",
    ),
    *(
        (
            "spec",
            {
                "teacher": {"model": "hf://a/b"},
                "student": {"model": "hf://a/b"},
                "data": {"train": "file://a"},
                "storage": {"uri": "s3://a"},
                "signal": {"kind": "sampled"},
                "objective": {"divergences": divergences},
            },
            "spec: signal.kind sampled needs objective.divergences of kind forwardKL alone: of others, draws give a "
            "biased gradient",
        )
        for divergences in ([{"kind": "reverseKL"}], [{"kind": "forwardKL"}, {"kind": "jensenShannon", "weight": 0.1}])
    ),
    (
        "spec",
        {
            "teacher": {"model": "hf://a/b"},
            "student": {"model": "hf://a/b", "gpusPerWorker": 0},
            "data": {"train": "file://a"},
            "storage": {"uri": "s3://a"},
            "training": {"precision": "float16"},
        },
        "spec: training.precision float16 needs GPUs; use float32 or bfloat16 on processors",
    ),
    (
        "spec.pods",
        teacher(tolerations=[{"key": "gpu", "operator": "Exists", "value": "yes"}]),
        "spec.pods.teacher.tolerations[0]: value is not compared with operator Exists: leave it out",
    ),
    (
        "spec.pods",
        teacher(tolerations=[{"value": "yes"}]),
        "spec.pods.teacher.tolerations[0]: without key, operator must be Exists",
    ),
    (
        "spec.pods",
        teacher(tolerations=[{"operator": "Exists", "tolerationSeconds": 5}]),
        "spec.pods.teacher.tolerations[0]: tolerationSeconds needs effect NoExecute",
    ),
    (
        "spec.pods",
        teacher(environment=[{"name": "A"}]),
        "spec.pods.teacher.environment[0]: give exactly one of value, secret and configMap",
    ),
    (
        "spec.pods",
        teacher(environment=[{"name": "A", "value": "", "secret": {"name": "s", "key": "k"}}]),
        "spec.pods.teacher.environment[0]: give exactly one of value, secret and configMap",
    ),
    (
        "spec.pods",
        teacher(environment=[{"name": "DISTILL_X", "value": "1"}]),
        "spec.pods.teacher.environment[0].name: must not begin with DISTILL_: such names are the operator's own",
    ),
    (
        "spec.pods",
        teacher(volumes=[{"name": "a", "mountPath": "/a"}]),
        "spec.pods.teacher.volumes[0]: give exactly one of claim, secret, configMap, emptyDir and image",
    ),
    (
        "spec.pods",
        teacher(volumes=[{**VOLUME, "claim": "c"}]),
        "spec.pods.teacher.volumes[0]: give exactly one of claim, secret, configMap, emptyDir and image",
    ),
    (
        "spec.pods",
        teacher(volumes=[{**VOLUME, "name": "distill-cache"}]),
        "spec.pods.teacher.volumes[0].name: must not begin with distill-: such names are the operator's own",
    ),
    (
        "spec.pods",
        teacher(volumes=[{**VOLUME, "mountPath": "/tmp/a"}]),
        f"spec.pods.teacher.volumes[0].mountPath: {OWN_FOLDER}",
    ),
    (
        "spec.pods",
        teacher(volumes=[{**VOLUME, "mountPath": "/etc"}]),
        f"spec.pods.teacher.volumes[0].mountPath: {OWN_FOLDER}",
    ),
    (
        "spec.pods",
        teacher(volumes=[{**VOLUME, "name": "a"}, {**VOLUME, "name": "b"}]),
        "spec.pods.teacher: two volumes have the same mountPath",
    ),
    (
        "spec.pods",
        teacher(modelCache={"claim": "a", "emptyDir": "1Gi"}),
        "spec.pods.teacher.modelCache: give at most one of claim, perPod and emptyDir",
    ),
    (
        "spec.pods",
        teacher(modelCache={"storageClass": "fast"}),
        "spec.pods.teacher.modelCache: storageClass needs perPod",
    ),
    (
        "spec.pods",
        teacher(extraResources={"cpu": 1}),
        "spec.pods.teacher: cpu, memory and ephemeral-storage have fields of their own",
    ),
    (
        "spec.pods",
        teacher(extraResources={"rdma/hca": "500m"}),
        "spec.pods.teacher: extra resources are counted in whole numbers",
    ),
    ("spec.pods", teacher(cpu=9, cpuLimit="8500m"), "spec.pods.teacher: cpu must not be more than cpuLimit"),
    (
        "spec.pods",
        teacher(sharedMemory="64Gi", memory="64G"),
        "spec.pods.teacher: sharedMemory must not be more than memory, which includes it",
    ),
    ("spec.pods", nodes(key="gpu", operator="In"), f"{NODE}: {NODE_VALUES}"),
    ("spec.pods", nodes(key="gpu", operator="Exists", values=["a"]), f"{NODE}: {NODE_VALUES}"),
    ("spec.pods", nodes(key="gpu", operator="Gt", values=["1", "2"]), f"{NODE}: {NODE_VALUES}"),
    ("spec.pods", away_from(key="app", operator="NotIn"), f"{PODS}: {POD_VALUES}"),
    ("spec.pods", away_from(key="app", operator="DoesNotExist", values=["a"]), f"{PODS}: {POD_VALUES}"),
]
"""Mistakes that only a rule can find: where, what, and the sentence that both say."""
