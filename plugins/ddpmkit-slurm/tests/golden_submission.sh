#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-1%2
#SBATCH --constraint=avx512
#SBATCH --cpus-per-task=4
#SBATCH --exclude=n3
#SBATCH --exclusive
#SBATCH --gres=gpu:a100:1
#SBATCH --job-name=toy
#SBATCH --mem=12800M
#SBATCH --nice=100
#SBATCH --nodelist='n[1-4]'
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=FOLDER/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=long
#SBATCH --requeue
#SBATCH --reservation=night
#SBATCH --signal=USR2@60
#SBATCH --time=90

# setup
module load cuda; source env.sh

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output FOLDER/%A_%a_%t_log.out --cpus-per-task=4 apptainer exec torch.sif python -u -m submitit.core._submit FOLDER
