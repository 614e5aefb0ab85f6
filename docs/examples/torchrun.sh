#!/bin/bash
# On every machine, with the same HOST:PORT. Without --signals-to-handle a SIGUSR1 would end torchrun
# and leave the training processes to notice.
endpoint=$1
nodes=$2
processes=$3
shift 3
torchrun --nnodes "$nodes" --nproc-per-node "$processes" --rdzv-backend c10d \
  --rdzv-endpoint "$endpoint" --rdzv-id adios-tme --max-restarts 3 \
  --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
  --no-python adios-tme train "$@"
