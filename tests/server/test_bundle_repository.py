"""Bundles as models of Triton's repository: tritonclient loads and unloads them, over gRPC and
HTTP."""

from __future__ import annotations

import threading

import grpc
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from conftest import FLOAT
from models import embedded, points_cache
from test_bundles import random_bundle, states
from tritonclient.utils import InferenceServerException
from tokens import TokensFile
from wire import classify, png
